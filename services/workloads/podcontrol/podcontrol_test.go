package podcontrol

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// newPod is a running pod on node "n", created and ready at epoch, with changes.
func newPod(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: name, CreationTimestamp: timestamppb.New(epoch)},
		Spec:     &corev1.PodSpec{NodeName: "n"},
		Status: &corev1.PodStatus{Phase: core.PodRunning, Conditions: []*corev1.PodCondition{
			{Type: core.PodReady, Status: condition.True, LastTransitionTime: timestamppb.New(epoch)},
		}},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func unbound(p *corev1.Pod) {
	p.Spec.NodeName, p.Status.Phase, p.Status.Conditions = "", core.PodPending, nil
}
func pending(p *corev1.Pod)  { p.Status.Phase, p.Status.Conditions = core.PodPending, nil }
func unknown(p *corev1.Pod)  { p.Status.Phase = core.PodUnknown }
func notReady(p *corev1.Pod) { p.Status.Conditions[0].Status = condition.False }
func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = node }
}
func cost(n string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Metadata.Annotations = map[string]string{DeletionCost: n} }
}
func readyAt(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions[0].LastTransitionTime = timestamppb.New(epoch.Add(d))
	}
}
func restarted(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses = []*corev1.ContainerStatus{{RestartCount: n}} }
}
func createdAt(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Metadata.CreationTimestamp = timestamppb.New(epoch.Add(d)) }
}

func TestSurplus(t *testing.T) {
	// In each row the first pod is deleted before the second, whatever the rules below say.
	for name, pair := range map[string][2]*corev1.Pod{
		"no node before a node":              {newPod("a", unbound, cost("100")), newPod("b", pending)},
		"pending before running":             {newPod("a", pending, cost("100")), newPod("b", notReady)},
		"unknown before running":             {newPod("a", unknown), newPod("b", notReady)},
		"not ready before ready":             {newPod("a", notReady, cost("100")), newPod("b")},
		"not ready counts, whatever its age": {newPod("a", notReady, readyAt(-time.Hour)), newPod("b", readyAt(time.Hour))},
		"lower cost first":                   {newPod("a", cost("-1"), on("roomy")), newPod("b", on("crowded"))},
		"an invalid cost is 0":               {newPod("a", cost("much"), on("crowded")), newPod("b", on("roomy"))},
		"the node with more pods first":      {newPod("a", on("crowded")), newPod("b", on("roomy"), readyAt(time.Hour))},
		"ready for the shorter time first":   {newPod("a", readyAt(time.Minute)), newPod("b", restarted(9))},
		"more restarts first":                {newPod("a", restarted(2)), newPod("b", restarted(1), createdAt(time.Hour))},
		"younger first":                      {newPod("a", createdAt(time.Minute)), newPod("b")},
	} {
		onNode := map[string]int{"crowded": 3, "roomy": 1}
		for _, order := range [][]*corev1.Pod{{pair[0], pair[1]}, {pair[1], pair[0]}} {
			if got := Surplus(order, 1, onNode); got[0].GetMetadata().GetName() != "a" {
				t.Errorf("%s: got the other pod", name)
			}
		}
	}
}

func TestAvailableIn(t *testing.T) {
	for _, tt := range []struct {
		name            string
		pod             *corev1.Pod
		minReadySeconds int32
		want            time.Duration
		ready           bool
	}{
		{"not ready", newPod("p", notReady), 0, 0, false},
		{"no time asked for", newPod("p"), 0, 0, true},
		{"no time asked for, and the node's clock is ahead", newPod("p", readyAt(time.Hour)), 0, 0, true},
		{"half of the time has passed", newPod("p"), 120, time.Minute, true},
		{"the time has passed", newPod("p"), 60, 0, true},
	} {
		if got, ready := AvailableIn(tt.pod, tt.minReadySeconds, epoch.Add(time.Minute)); got != tt.want || ready != tt.ready {
			t.Errorf("%s: %v, %t; want %v, %t", tt.name, got, ready, tt.want, tt.ready)
		}
	}
}

func TestFromTemplate(t *testing.T) {
	template := &corev1.PodTemplateSpec{
		Metadata: &metav1.ObjectMeta{
			Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}, Finalizers: []string{"example.com/f"},
		},
		Spec: &corev1.PodSpec{NodeName: "n"},
	}
	for _, owner := range []string{
		"web", strings.Repeat("a", 56) + ".b", strings.Repeat("a", 57) + ".b", strings.Repeat("a", 56) + "-b", strings.Repeat("a.", 120),
	} {
		rs := &appsv1.ReplicaSet{Metadata: &metav1.ObjectMeta{Name: owner, Namespace: "default"}}
		p := FromTemplate(rs, template)
		name := p.GetMetadata().GetGenerateName() + "bcdfg"
		if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 || len(name) > 63 {
			t.Errorf("pods of %s are called %s: %v", owner, name, errs)
		}
		m := p.GetMetadata()
		if m.GetNamespace() != "default" || m.GetLabels()["a"] != "b" || m.GetAnnotations()["c"] != "d" || len(m.GetFinalizers()) != 1 || p.GetSpec().GetNodeName() != "n" {
			t.Errorf("got %v", p)
		}
		m.Labels["a"], p.Spec.NodeName = "changed", "changed"
		if template.GetMetadata().GetLabels()["a"] != "b" || template.GetSpec().GetNodeName() != "n" {
			t.Fatal("the pod shares memory with its template")
		}
	}
}

func TestSlimKeepsWhatControllersRead(t *testing.T) {
	p := newPod("p", restarted(3), cost("7"))
	p.Spec.Containers = []*corev1.Container{{Name: "c"}}
	p.Status.ContainerStatuses[0].Image = "example/echo:1"
	Slim(p)
	if len(p.Spec.Containers) > 0 || p.Status.ContainerStatuses[0].Image != "" {
		t.Errorf("kept more than is read: %v", p)
	}
	if !core.IsPodReady(p) || restarts(p) != 3 || deletionCost(p) != 7 || p.GetSpec().GetNodeName() != "n" {
		t.Errorf("dropped what is read: %v", p)
	}
	Slim(&corev1.Pod{Metadata: &metav1.ObjectMeta{}})
}
