package workloads

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation"

	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// podWith is a running, ready pod that is ten minutes old, on node "n", changed as told.
func podWith(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: name, CreationTimestamp: timestamppb.New(epoch), Labels: map[string]string{"a": "b"}},
		Spec:     &corev1.PodSpec{NodeName: "n"},
		Status: &corev1.PodStatus{Phase: "Running", Conditions: []*corev1.PodCondition{
			{Type: "Ready", Status: "True", LastTransitionTime: timestamppb.New(epoch)},
		}},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func unbound(p *corev1.Pod) {
	p.Spec.NodeName, p.Status.Phase, p.Status.Conditions = "", "Pending", nil
}
func pendingP(p *corev1.Pod) { p.Status.Phase, p.Status.Conditions = "Pending", nil }
func notReady(p *corev1.Pod) { p.Status.Conditions[0].Status = "False" }
func deleting(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.New(epoch) }
func failed(p *corev1.Pod)   { p.Status.Phase = "Failed" }
func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = node }
}
func cost(n string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Metadata.Annotations = map[string]string{deletionCost: n} }
}
func readyAt(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions[0].LastTransitionTime = timestamppb.New(epoch.Add(d))
	}
}
func restarted(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses = []*corev1.ContainerStatus{{RestartCount: n}} }
}
func madeAt(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Metadata.CreationTimestamp = timestamppb.New(epoch.Add(d)) }
}

func TestPick(t *testing.T) {
	// In each row the first pod goes before the second, whatever the rules below say.
	for name, pair := range map[string][2]*corev1.Pod{
		"not bound before bound":           {podWith("a", unbound, cost("100")), podWith("b", pendingP)},
		"pending before running":           {podWith("a", pendingP, cost("100")), podWith("b", notReady)},
		"not ready before ready":           {podWith("a", notReady, cost("100")), podWith("b")},
		"lower cost first":                 {podWith("a", cost("-1"), on("roomy")), podWith("b", on("crowded"))},
		"a cost that is no number is 0":    {podWith("a", cost("much"), on("crowded")), podWith("b", on("roomy"))},
		"crowded node first":               {podWith("a", on("crowded")), podWith("b", on("roomy"), readyAt(time.Hour))},
		"ready for the shorter time":       {podWith("a", readyAt(time.Minute)), podWith("b", restarted(9))},
		"restarted more often":             {podWith("a", restarted(2)), podWith("b", restarted(1), madeAt(time.Hour))},
		"younger first":                    {podWith("a", madeAt(time.Minute)), podWith("b")},
		"unknown is before running, too":   {podWith("a", func(p *corev1.Pod) { p.Status.Phase = "Unknown" }), podWith("b", notReady)},
		"a time of readiness is no excuse": {podWith("a", notReady, readyAt(-time.Hour)), podWith("b", readyAt(time.Hour))},
	} {
		crowding := map[string]int{"crowded": 3, "roomy": 1}
		for _, order := range [][]*corev1.Pod{{pair[0], pair[1]}, {pair[1], pair[0]}} {
			if got := pick(order, 1, crowding); got[0].GetMetadata().GetName() != "a" {
				t.Errorf("%s: the other went first", name)
			}
		}
	}
}

func TestReplicaSetStatus(t *testing.T) {
	rs := &appsv1.ReplicaSet{Metadata: &metav1.ObjectMeta{Generation: 3}, Spec: &appsv1.ReplicaSetSpec{
		MinReadySeconds: 10, Template: &corev1.PodTemplateSpec{Metadata: &metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}},
	}}
	now := epoch.Add(time.Minute)
	pods := []*corev1.Pod{
		podWith("available"), podWith("ready", readyAt(54*time.Second)), podWith("later", readyAt(58*time.Second)),
		podWith("not", notReady), podWith("going", deleting), podWith("over", failed),
		podWith("other", func(p *corev1.Pod) { p.Metadata.Labels = nil }),
	}
	s, again := replicaSetStatus(rs, pods, nil, now)
	want := &appsv1.ReplicaSetStatus{Replicas: 5, FullyLabeledReplicas: 4, ReadyReplicas: 4, AvailableReplicas: 2, ObservedGeneration: 3, TerminatingReplicas: proto.Int32(1)}
	if !proto.Equal(s, want) || again != 4*time.Second {
		t.Errorf("got %v, again in %v; want %v, 4s", s, again, want)
	}

	// A clock that runs ahead holds up nobody who asks for no time.
	rs.Spec.MinReadySeconds = 0
	if s, again := replicaSetStatus(rs, []*corev1.Pod{podWith("ahead", readyAt(time.Hour))}, nil, now); s.GetAvailableReplicas() != 1 || again != 0 {
		t.Errorf("got %v, again in %v", s, again)
	}

	// A failure stays as it was first told, until another kind of failure or none.
	fail := func(reason string, n int) error { return &scaleError{reason, fmt.Errorf("attempt %d", n)} }
	rs.Status, _ = replicaSetStatus(rs, nil, fail(failedCreate, 1), now)
	first := proto.Clone(rs.Status)
	if rs.Status, _ = replicaSetStatus(rs, nil, fail(failedCreate, 2), now.Add(time.Minute)); !proto.Equal(first, rs.Status) {
		t.Errorf("the second attempt changed the status from %v to %v", first, rs.Status)
	}
	if rs.Status, _ = replicaSetStatus(rs, nil, fail(failedDelete, 3), now); rs.Status.GetConditions()[0].GetReason() != failedDelete {
		t.Errorf("got %v", rs.Status)
	}
	if rs.Status, _ = replicaSetStatus(rs, nil, nil, now); len(rs.Status.GetConditions()) != 0 {
		t.Errorf("got %v", rs.Status)
	}
}

func TestGenerateName(t *testing.T) {
	for _, set := range []string{"web", strings.Repeat("a", 56) + ".b", strings.Repeat("a", 57) + ".b", strings.Repeat("a", 56) + "-b", strings.Repeat("a.", 120)} {
		name := generateName(set) + "bcdfg"
		if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 || len(name) > 63 {
			t.Errorf("pods of %s are called %s: %v", set, name, errs)
		}
	}
}

// TestPlanWithStaleStatus has sets whose status does not show yet what was asked of them: neither limit may be passed.
func TestPlanWithStaleStatus(t *testing.T) {
	l := limits{replicas: 4, maxSurge: 1, maxUnavailable: 1}
	for _, tt := range []struct {
		name     string
		new, old replicas
		want     string
	}{
		{"the old set is to lose one, which it still counts as available",
			replicas{name: "new", wanted: 2}, replicas{name: "old", wanted: 3, actual: 4, available: 4}, "[]"},
		{"the old set is to lose one, which is still there",
			replicas{name: "new", wanted: 1, actual: 1, available: 1}, replicas{name: "old", wanted: 3, actual: 4, available: 4}, "[{old 2}]"},
		{"it is gone",
			replicas{name: "new", wanted: 1, actual: 1, available: 1}, replicas{name: "old", wanted: 3, actual: 3, available: 3}, "[{new 2} {old 2}]"},
	} {
		if got := fmt.Sprint(planRolling(l, tt.new, []replicas{tt.old})); got != tt.want {
			t.Errorf("%s: the plan is %s, want %s", tt.name, got, tt.want)
		}
	}
}
