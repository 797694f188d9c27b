package framework

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// PodSelector chooses pods by their namespaces and labels. It is immutable.
type PodSelector struct {
	namespaces []string        // sorted
	ofLabels   labels.Selector // labels of further namespaces; nil for none
	labels     labels.Selector
	key        string // equal for selectors that choose the same pods
}

func newPodSelector(namespaces []string, ofLabels, of labels.Selector) *PodSelector {
	s := &PodSelector{slices.Sorted(slices.Values(namespaces)), ofLabels, of, ""}
	s.key = strings.Join(s.namespaces, ",") + "\x00" + of.String()
	if _, selectable := of.Requirements(); !selectable {
		s.key += "\x00nothing"
	}
	if ofLabels != nil {
		s.key += "\x00\x00" + ofLabels.String()
	}
	return s
}

// SelectorOfLabels returns a selector of the pods of a namespace that have all of these labels.
func SelectorOfLabels(namespace string, set map[string]string) *PodSelector {
	return newPodSelector([]string{namespace}, nil, labels.SelectorFromValidatedSet(set))
}

// String describes the pods: those "matching app=web in namespace default".
func (s *PodSelector) String() string {
	text := "matching " + s.labels.String()
	switch _, selectable := s.labels.Requirements(); {
	case !selectable:
		text = "matching nothing"
	case s.labels.Empty():
		text = "with any labels"
	}
	var in []string
	switch {
	case len(s.namespaces) == 1:
		in = append(in, "namespace "+s.namespaces[0])
	case len(s.namespaces) > 1:
		in = append(in, "namespaces "+strings.Join(s.namespaces, ", "))
	}
	switch {
	case s.ofLabels == nil:
	case s.ofLabels.Empty():
		in = []string{"any namespace"}
	default:
		in = append(in, "namespaces with "+s.ofLabels.String())
	}
	return text + " in " + strings.Join(in, " and ")
}

// UsesNamespaceLabels reports whether the labels of namespaces decide.
func (s *PodSelector) UsesNamespaceLabels() bool { return s.ofLabels != nil }

// Matches reports whether the selector chooses a pod.
func (s *PodSelector) Matches(in *Snapshot, p *Pod) bool { return s.matches(in, p.Namespace, p.Labels) }

func (s *PodSelector) matches(in *Snapshot, namespace string, set map[string]string) bool {
	if !slices.Contains(s.namespaces, namespace) && (s.ofLabels == nil || !s.ofLabels.Matches(labels.Set(in.namespaces[namespace]))) {
		return false
	}
	return s.labels.Matches(labels.Set(set))
}

// PodTerm is a term of a pod's affinity or anti-affinity.
type PodTerm struct {
	// PodSelector chooses the other pods.
	*PodSelector
	// TopologyKey is the node label whose equal values mean nearby.
	TopologyKey string
	// Weight is what a preferred term is worth, 1 to 100; 0 for required terms.
	Weight int32
}

// key is equal for terms that say the same.
func (t *PodTerm) key() string {
	return fmt.Sprint(t.TopologyKey, "\x00", t.Weight, "\x00", t.PodSelector.key)
}

// TermKind says what a term of affinity asks for.
type TermKind int

// The kinds of terms.
const (
	// Affinity wants other pods nearby, AntiAffinity wants none nearby.
	Affinity TermKind = iota
	AntiAffinity
	// PreferredAffinity and PreferredAntiAffinity are wishes with weights.
	PreferredAffinity
	PreferredAntiAffinity
	termKinds
)

// podTerms reads the terms of a pod by kind.
func podTerms(p *corev1.Pod) (terms [termKinds][]PodTerm) {
	near, apart := p.GetSpec().GetAffinity().GetPodAffinity(), p.GetSpec().GetAffinity().GetPodAntiAffinity()
	if near == nil && apart == nil {
		return terms
	}
	for kind, required := range map[TermKind][]*corev1.PodAffinityTerm{
		Affinity:     near.GetRequiredDuringSchedulingIgnoredDuringExecution(),
		AntiAffinity: apart.GetRequiredDuringSchedulingIgnoredDuringExecution(),
	} {
		for _, t := range required {
			terms[kind] = append(terms[kind], newPodTerm(p, t, 0))
		}
	}
	for kind, preferred := range map[TermKind][]*corev1.WeightedPodAffinityTerm{
		PreferredAffinity:     near.GetPreferredDuringSchedulingIgnoredDuringExecution(),
		PreferredAntiAffinity: apart.GetPreferredDuringSchedulingIgnoredDuringExecution(),
	} {
		for _, t := range preferred {
			terms[kind] = append(terms[kind], newPodTerm(p, t.GetPodAffinityTerm(), t.GetWeight()))
		}
	}
	return terms
}

func newPodTerm(p *corev1.Pod, t *corev1.PodAffinityTerm, weight int32) PodTerm {
	namespaces, of := t.GetNamespaces(), labels.Selector(nil)
	if t.GetNamespaceSelector() != nil {
		of = selectorOf(t.GetNamespaceSelector())
	} else if len(namespaces) == 0 {
		namespaces = []string{p.GetMetadata().GetNamespace()}
	}
	pods := withKeys(selectorOf(t.GetLabelSelector()), selection.In, t.GetMatchLabelKeys(), p.GetMetadata().GetLabels())
	pods = withKeys(pods, selection.NotIn, t.GetMismatchLabelKeys(), p.GetMetadata().GetLabels())
	return PodTerm{newPodSelector(namespaces, of, pods), t.GetTopologyKey(), weight}
}

// selectorOf reads a selector. One that is invalid, which validation refuses, chooses nothing.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	selector, err := object.LabelSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}

// withKeys adds to a selector that pods have, or do not have, the values of these labels.
func withKeys(s labels.Selector, op selection.Operator, keys []string, of map[string]string) labels.Selector {
	for _, key := range keys {
		if value, has := of[key]; has {
			if r, err := labels.NewRequirement(key, op, []string{value}); err == nil {
				s = s.Add(*r)
			}
		}
	}
	return s
}

// SpreadConstraint says how pods spread over the domains of a topology.
type SpreadConstraint struct {
	// TopologyKey is the node label whose values are the domains.
	TopologyKey string
	// MaxSkew is how many more pods a domain may have than the one with the fewest.
	MaxSkew int
	// MinDomains is the number of domains below which the fewest pods count as 0.
	MinDomains int
	// Required is true for DoNotSchedule.
	Required bool
	// HonorAffinity leaves out nodes that the pod cannot run on by its node affinity, and HonorTaints
	// nodes with taints that it does not tolerate.
	HonorAffinity, HonorTaints bool
	// PodSelector chooses the pods that count; nil where defaults leave that to the pod's owner.
	*PodSelector
}

// Values of whenUnsatisfiable and of the policies for nodes.
const (
	doNotSchedule = "DoNotSchedule"
	honor         = "Honor"
	ignore        = "Ignore"
)

func spreadConstraints(p *corev1.Pod) []SpreadConstraint {
	var all []SpreadConstraint
	for _, c := range p.GetSpec().GetTopologySpreadConstraints() {
		selector := withKeys(selectorOf(c.GetLabelSelector()), selection.In, c.GetMatchLabelKeys(), p.GetMetadata().GetLabels())
		all = append(all, SpreadConstraint{
			TopologyKey: c.GetTopologyKey(), MaxSkew: int(c.GetMaxSkew()), MinDomains: int(max(c.GetMinDomains(), 1)),
			Required: c.GetWhenUnsatisfiable() == doNotSchedule, HonorAffinity: c.GetNodeAffinityPolicy() != ignore,
			HonorTaints: c.GetNodeTaintsPolicy() == honor,
			PodSelector: newPodSelector([]string{p.GetMetadata().GetNamespace()}, nil, selector),
		})
	}
	return all
}

// groupKey is equal for pods that every selector treats alike.
func groupKey(p *Pod) string {
	var b strings.Builder
	b.WriteString(p.Namespace)
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		b.WriteString("\x00" + key + "=" + p.Labels[key])
	}
	if p.Deleting {
		b.WriteString("\x00\x00")
	}
	return b.String()
}
