package apiserver

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
)

// refusedWith checks that an error is a refusal with these words.
func refusedWith(t *testing.T, err error, words string) {
	t.Helper()
	if !apierr.IsForbidden(err) || !strings.Contains(err.Error(), words) {
		t.Errorf("error %v, want a refusal with %q", err, words)
	}
}

func priorityClass(name string, value int32) *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{Metadata: &metav1.ObjectMeta{Name: name}, Value: value}
}

func inClass(name, class string) *corev1.Pod {
	p := pod(name)
	p.Spec.PriorityClassName = class
	return p
}

// TestPodsGetThePriorityOfTheirClass plays the steps of the specs of PriorityClass besides
// preemption.
func TestPodsGetThePriorityOfTheirClass(t *testing.T) {
	_, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	create := func(p *corev1.Pod) (*corev1.PodSpec, error) {
		p, err := client.Create(ctx, c, p)
		return p.GetSpec(), err
	}

	spec := do[*corev1.PodSpec](t)(create(pod("plain")))
	if spec.Priority == nil || spec.GetPriority() != 0 || spec.GetPreemptionPolicy() != "PreemptLowerPriority" || spec.GetPriorityClassName() != "" {
		t.Errorf("without a class: %v", spec)
	}
	_, err := create(inClass("missing", "no-such"))
	refusedWith(t, err, "no PriorityClass with name no-such was found")

	high := priorityClass("high", 1000)
	high.PreemptionPolicy = proto.String(scheduling.PreemptNever)
	do[*schedulingv1.PriorityClass](t)(client.Create(ctx, c, high))
	spec = do[*corev1.PodSpec](t)(create(inClass("high", "high")))
	if spec.GetPriority() != 1000 || spec.GetPreemptionPolicy() != "Never" {
		t.Errorf("of the class high: %v", spec)
	}
	other := inClass("other", "high")
	other.Spec.Priority = proto.Int32(7)
	_, err = create(other)
	refusedWith(t, err, "the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 1000")
	other.Spec.Priority, other.Spec.PreemptionPolicy = nil, proto.String("PreemptLowerPriority")
	_, err = create(other)
	refusedWith(t, err, "computed Never from the given PriorityClass name")

	// A client that does not know the fields leaves them out of an update.
	p := client.Clone(do[*corev1.Pod](t)(client.Get[*corev1.Pod](ctx, c, "default", "high")))
	p.Spec.Priority, p.Spec.PreemptionPolicy, p.Metadata.Labels = nil, nil, map[string]string{"a": "b"}
	p = do[*corev1.Pod](t)(client.Update(ctx, c, p))
	if p.GetSpec().GetPriority() != 1000 || p.GetSpec().GetPreemptionPolicy() != "Never" {
		t.Errorf("after an update: %v", p.GetSpec())
	}

	low := priorityClass("low", -5)
	low.GlobalDefault = true
	do[*schedulingv1.PriorityClass](t)(client.Create(ctx, c, low))
	second := priorityClass("second", 1)
	second.GlobalDefault = true
	_, err = client.Create(ctx, c, second)
	refusedWith(t, err, "PriorityClass low is already marked as default. Only one default can exist")
	spec = do[*corev1.PodSpec](t)(create(pod("by-default")))
	if spec.GetPriority() != -5 || spec.GetPriorityClassName() != "low" {
		t.Errorf("of the default class: %v", spec)
	}
}

func TestSystemPriorityClassesAreKept(t *testing.T) {
	svc, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	for name, value := range map[string]int32{scheduling.SystemNodeCritical: 2000001000, scheduling.SystemClusterCritical: 2000000000} {
		var class *schedulingv1.PriorityClass
		for deadline := time.Now().Add(time.Minute); class == nil; {
			got, err := client.Get[*schedulingv1.PriorityClass](ctx, c, "", name)
			switch {
			case err == nil:
				class = client.Clone(got)
			case !apierr.IsNotFound(err) || time.Now().After(deadline):
				t.Fatal(err)
			}
		}
		if class.GetValue() != value {
			t.Errorf("%s has the value %d", name, class.GetValue())
		}
		_, err := client.Delete[*schedulingv1.PriorityClass](ctx, c, "", name)
		refusedWith(t, err, "this is a system priority class and cannot be deleted")
		want := class.GetDescription()
		class.Description = "changed"
		do[*schedulingv1.PriorityClass](t)(client.Update(ctx, c, class))
		// The instance looks at its cache, which a read brings up to date.
		do[*schedulingv1.PriorityClass](t)(client.Get[*schedulingv1.PriorityClass](ctx, c, "", name))
		if err := svc.makePriorityClasses(ctx); err != nil {
			t.Fatal(err)
		}
		if got := do[*schedulingv1.PriorityClass](t)(client.Get[*schedulingv1.PriorityClass](ctx, c, "", name)); got.GetDescription() != want {
			t.Errorf("the description of %s is %q, want %q", name, got.GetDescription(), want)
		}
	}
}

// TestPodsGetWhatTheirRuntimeClassNeeds plays the steps of the specs of RuntimeClass that concern
// admission.
func TestPodsGetWhatTheirRuntimeClassNeeds(t *testing.T) {
	_, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	amounts := func(cpu string) map[string]*metav1.Quantity {
		return map[string]*metav1.Quantity{"cpu": {String_: cpu}}
	}
	do[*nodev1.RuntimeClass](t)(client.Create(ctx, c, &nodev1.RuntimeClass{
		Metadata: &metav1.ObjectMeta{Name: "sandboxed"}, Handler: "runsc", Overhead: &nodev1.Overhead{PodFixed: amounts("250m")},
		Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"sandbox": "yes"},
			Tolerations:  []*corev1.Toleration{{Key: "sandbox", Operator: "Exists"}},
		},
	}))
	of := func(name string) *corev1.Pod {
		p := pod(name)
		p.Spec.RuntimeClassName = proto.String("sandboxed")
		return p
	}
	p := of("web")
	p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	p.Spec.Tolerations = []*corev1.Toleration{{Key: "sandbox", Operator: "Equal", Value: "yes"}, {Key: "other", Operator: "Exists"}}
	p = do[*corev1.Pod](t)(client.Create(ctx, c, p))
	spec := p.GetSpec()
	if spec.GetOverhead()["cpu"].GetString_() != "250m" || len(spec.GetNodeSelector()) != 2 || len(spec.GetTolerations()) != 2 {
		t.Errorf("overhead %v, node selector %v, tolerations %v", spec.GetOverhead(), spec.GetNodeSelector(), spec.GetTolerations())
	}
	for name, tt := range map[string]struct {
		edit func(*corev1.PodSpec)
		want string
	}{
		"missing":  {func(s *corev1.PodSpec) { s.RuntimeClassName = proto.String("none") }, `RuntimeClass "none" not found`},
		"overhead": {func(s *corev1.PodSpec) { s.Overhead = amounts("1") }, "Pod's Overhead doesn't match RuntimeClass's defined Overhead"},
		"without": {func(s *corev1.PodSpec) { s.RuntimeClassName, s.Overhead = nil, amounts("1") },
			"Pod Overhead set without corresponding RuntimeClass defined Overhead"},
		"selector": {func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"sandbox": "no"} },
			"conflict: runtimeClass.scheduling.nodeSelector[sandbox] = yes; pod.spec.nodeSelector[sandbox] = no"},
	} {
		p := of(name)
		tt.edit(p.Spec)
		_, err := client.Create(ctx, c, p)
		refusedWith(t, err, tt.want)
	}
	same := of("same")
	same.Spec.Overhead = amounts("0.25")
	do[*corev1.Pod](t)(client.Create(ctx, c, same))
}
