package plugins_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
)

func nodeFields(words []string) (fields string, labels map[string]string) {
	labels = map[string]string{}
	var all []string
	for _, w := range words {
		key, value, isLabel := strings.Cut(w, "=")
		switch {
		case w == "big":
			all = append(all, frameworktest.Big)
		case w == "core":
			all = append(all, `"status":{"allocatable":{"cpu":"1","memory":"8Gi","pods":"110"}}`)
		case w == "small":
			all = append(all, frameworktest.Small)
		case isLabel && !strings.HasPrefix(w, `"`):
			labels[key] = value
		default:
			all = append(all, w)
		}
	}
	return strings.Join(all, ","), labels
}

func podSpec(words []string) string {
	var requests, fields []string
	hasContainers := false
	for _, w := range words {
		name, amount, isRequest := strings.Cut(w, "=")
		if isRequest && !strings.HasPrefix(w, `"`) {
			requests = append(requests, fmt.Sprintf("%q:%q", name, amount))
			continue
		}
		hasContainers = hasContainers || strings.HasPrefix(w, `"containers"`)
		fields = append(fields, w)
	}
	if !hasContainers {
		fields = append(fields, frameworktest.Container(strings.Join(requests, ",")))
	}
	return strings.Join(fields, ",")
}

// podOf makes a pod of the words of a scenario. testdata/schedule.txt describes them.
func podOf(t *testing.T, name, node string, words []string) *framework.Pod {
	t.Helper()
	var spec []string
	var changes []func(*corev1.Pod)
	for _, w := range words {
		if change := podWord(t, w); change != nil {
			changes = append(changes, change)
		} else {
			spec = append(spec, w)
		}
	}
	return frameworktest.PodOf(t, name, node, "rs", podSpec(spec), changes...)
}

// podWord reads a word that is neither a request nor JSON; nil when it is one of these.
func podWord(t *testing.T, word string) func(*corev1.Pod) {
	t.Helper()
	if strings.HasPrefix(word, `"`) {
		return nil
	}
	verb, rest, _ := strings.Cut(word, ":")
	parts := strings.Split(rest, ":")
	switch verb {
	case "label":
		return func(p *corev1.Pod) {
			if p.Metadata.Labels == nil {
				p.Metadata.Labels = map[string]string{}
			}
			for key, value := range labelSet(parts) {
				p.Metadata.Labels[key] = value
			}
		}
	case "ns":
		return func(p *corev1.Pod) { p.Metadata.Namespace = rest }
	case "owner":
		return func(p *corev1.Pod) {
			kind, name, _ := strings.Cut(rest, "/")
			if p.Metadata.OwnerReferences[0].Kind, p.Metadata.OwnerReferences[0].Uid = kind, name; rest == "" {
				p.Metadata.OwnerReferences = nil
			}
		}
	case "priority":
		return func(p *corev1.Pod) { p.Spec.Priority = proto.Int32(number(t, rest)) }
	case "never":
		return func(p *corev1.Pod) { p.Spec.PreemptionPolicy = proto.String("Never") }
	case "started":
		return func(p *corev1.Pod) {
			statusOf(p).StartTime = timestamppb.New(time.Unix(int64(number(t, rest)), 0))
		}
	case "preempted":
		return func(p *corev1.Pod) {
			p.Metadata.DeletionTimestamp = timestamppb.Now()
			statusOf(p).Conditions = []*corev1.PodCondition{{Type: "DisruptionTarget", Status: "True", Reason: framework.ReasonPreempted}}
		}
	case "deleting":
		return func(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.Now() }
	case "near", "apart":
		return func(p *corev1.Pod) { addTerm(t, p, verb == "near", 0, parts) }
	case "+near", "+apart":
		return func(p *corev1.Pod) { addTerm(t, p, verb == "+near", number(t, parts[0]), parts[1:]) }
	case "spread", "+spread":
		return func(p *corev1.Pod) { addSpread(t, p, verb == "spread", parts) }
	}
	return nil
}

func statusOf(p *corev1.Pod) *corev1.PodStatus {
	if p.Status == nil {
		p.Status = &corev1.PodStatus{}
	}
	return p.Status
}

// budgetOf makes a budget of the words NAME ALLOWED SELECTOR [DISRUPTED]...
func budgetOf(t *testing.T, words []string) *framework.Budget {
	t.Helper()
	b := &policyv1.PodDisruptionBudget{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: words[0]},
		Spec:     &policyv1.PodDisruptionBudgetSpec{Selector: labelSelector(words[2])},
		Status: &policyv1.PodDisruptionBudgetStatus{
			DisruptionsAllowed: number(t, words[1]), DisruptedPods: map[string]*timestamppb.Timestamp{},
		},
	}
	for _, name := range words[3:] {
		b.Status.DisruptedPods[name] = timestamppb.Now()
	}
	return framework.NewBudget(b)
}

func number(t *testing.T, text string) int32 {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

// topology returns a topology key: "host" is the usual one.
func topology(name string) string {
	if name == "host" {
		return core.LabelHostname
	}
	return name
}

// addTerm adds a term TOPOLOGY:SELECTOR[:OPTION:VALUE]...; with a weight it is a preferred one.
func addTerm(t *testing.T, p *corev1.Pod, near bool, weight int32, parts []string) {
	t.Helper()
	term := &corev1.PodAffinityTerm{TopologyKey: topology(parts[0]), LabelSelector: labelSelector(parts[1])}
	for i := 2; i+1 < len(parts); i += 2 {
		switch parts[i] {
		case "in":
			term.Namespaces = strings.Split(parts[i+1], ",")
		case "ns":
			term.NamespaceSelector = labelSelector(parts[i+1])
		case "same":
			term.MatchLabelKeys = append(term.MatchLabelKeys, parts[i+1])
		case "other":
			term.MismatchLabelKeys = append(term.MismatchLabelKeys, parts[i+1])
		default:
			t.Fatalf("unknown option %q", parts[i])
		}
	}
	a := affinityOf(p)
	required, preferred := &a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, &a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	if near {
		required, preferred = &a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, &a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	}
	if weight == 0 {
		*required = append(*required, term)
	} else {
		*preferred = append(*preferred, &corev1.WeightedPodAffinityTerm{Weight: weight, PodAffinityTerm: term})
	}
}

func affinityOf(p *corev1.Pod) *corev1.Affinity {
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.PodAffinity == nil {
		p.Spec.Affinity.PodAffinity, p.Spec.Affinity.PodAntiAffinity = &corev1.PodAffinity{}, &corev1.PodAntiAffinity{}
	}
	return p.Spec.Affinity
}

// addSpread adds a constraint TOPOLOGY:MAXSKEW:SELECTOR[:OPTION:VALUE]...
func addSpread(t *testing.T, p *corev1.Pod, required bool, parts []string) {
	t.Helper()
	c := &corev1.TopologySpreadConstraint{
		TopologyKey: topology(parts[0]), MaxSkew: number(t, parts[1]), LabelSelector: labelSelector(parts[2]), WhenUnsatisfiable: "ScheduleAnyway",
	}
	if required {
		c.WhenUnsatisfiable = "DoNotSchedule"
	}
	for i := 3; i+1 < len(parts); i += 2 {
		switch parts[i] {
		case "min":
			c.MinDomains = proto.Int32(number(t, parts[i+1]))
		case "affinity":
			c.NodeAffinityPolicy = &parts[i+1]
		case "taints":
			c.NodeTaintsPolicy = &parts[i+1]
		case "same":
			c.MatchLabelKeys = append(c.MatchLabelKeys, parts[i+1])
		default:
			t.Fatalf("unknown option %q", parts[i])
		}
	}
	p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
}

func labelSet(words []string) map[string]string {
	set := map[string]string{}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		set[key] = value
	}
	return set
}

// labelSelector reads "-" (none), "*" (all), "key", "!key", "key=value", "key=one|other".
func labelSelector(text string) *metav1.LabelSelector {
	key, value, hasValue := strings.Cut(text, "=")
	e := &metav1.LabelSelectorRequirement{Key: key, Operator: "Exists"}
	switch {
	case text == "-":
		return nil
	case text == "*":
		return &metav1.LabelSelector{}
	case strings.HasPrefix(text, "!"):
		e.Key, e.Operator = text[1:], "DoesNotExist"
	case strings.Contains(value, "|"):
		e.Operator, e.Values = "In", strings.Split(value, "|")
	case hasValue:
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	return &metav1.LabelSelector{MatchExpressions: []*metav1.LabelSelectorRequirement{e}}
}
