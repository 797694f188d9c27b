package replicaset

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// readyPod has been ready since a time after epoch.
func readyPod(since time.Duration, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
		Status: &corev1.PodStatus{Phase: core.PodRunning, Conditions: []*corev1.PodCondition{
			{Type: core.PodReady, Status: condition.True, LastTransitionTime: timestamppb.New(epoch.Add(since))},
		}},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func TestStatusCountsPods(t *testing.T) {
	rs := &appsv1.ReplicaSet{Metadata: &metav1.ObjectMeta{Generation: 3}, Spec: &appsv1.ReplicaSetSpec{
		MinReadySeconds: 10, Template: &corev1.PodTemplateSpec{Metadata: &metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}},
	}}
	pods := []*corev1.Pod{
		readyPod(0), readyPod(54 * time.Second), readyPod(58 * time.Second),
		readyPod(0, func(p *corev1.Pod) { p.Status.Conditions[0].Status = condition.False }),
		readyPod(0, func(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.New(epoch) }),
		readyPod(0, func(p *corev1.Pod) { p.Status.Phase = core.PodFailed }),
		readyPod(0, func(p *corev1.Pod) { p.Metadata.Labels = nil }),
	}
	s, again := newStatus(rs, pods, nil, epoch.Add(time.Minute))
	want := &appsv1.ReplicaSetStatus{
		Replicas: 5, FullyLabeledReplicas: 4, ReadyReplicas: 4, AvailableReplicas: 2, ObservedGeneration: 3,
		TerminatingReplicas: proto.Int32(1),
	}
	if !proto.Equal(s, want) || again != 4*time.Second {
		t.Errorf("got %v, again in %v; want %v, 4s", s, again, want)
	}
}

func TestReplicaFailureKeepsItsFirstMessage(t *testing.T) {
	rs := &appsv1.ReplicaSet{Status: &appsv1.ReplicaSetStatus{
		Conditions: []*appsv1.ReplicaSetCondition{{Type: "Other", Status: condition.True}},
	}}
	for _, step := range []struct {
		err  error
		want string
	}{
		{&podcontrol.Error{Reason: podcontrol.FailedCreate, Err: fmt.Errorf("attempt 1")}, "FailedCreate attempt 1 at 0s"},
		{&podcontrol.Error{Reason: podcontrol.FailedCreate, Err: fmt.Errorf("attempt 2")}, "FailedCreate attempt 1 at 0s"},
		{&podcontrol.Error{Reason: podcontrol.FailedDelete, Err: fmt.Errorf("attempt 3")}, "FailedDelete attempt 3 at 2s"},
		{nil, ""},
		{&podcontrol.Error{Reason: podcontrol.FailedCreate, Err: fmt.Errorf("attempt 5")}, "FailedCreate attempt 5 at 4s"},
	} {
		n := int(rs.GetMetadata().GetGeneration())
		rs.Metadata = &metav1.ObjectMeta{Generation: int64(n + 1)}
		rs.Status, _ = newStatus(rs, nil, step.err, epoch.Add(time.Duration(n)*time.Second))
		got, others := "", 0
		for _, c := range rs.GetStatus().GetConditions() {
			if c.GetType() != podcontrol.ReplicaFailure {
				others++
				continue
			}
			got = fmt.Sprintf("%s %s at %v", c.GetReason(), c.GetMessage(), c.GetLastTransitionTime().AsTime().Sub(epoch))
		}
		if got != step.want || others != 1 {
			t.Errorf("after %v: %q and %d other conditions, want %q and 1", step.err, got, others, step.want)
		}
	}
}
