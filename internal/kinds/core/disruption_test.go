package core_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestSetDisruptionTarget(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	before := timestamppb.New(now.Add(-time.Hour))
	for _, tt := range []struct {
		name    string
		pod     *corev1.Pod
		changed bool
		since   time.Time
	}{
		{"no status", &corev1.Pod{}, true, now.Truncate(time.Second)},
		{"the same", &corev1.Pod{Status: &corev1.PodStatus{Conditions: []*corev1.PodCondition{
			{Type: "DisruptionTarget", Status: "True", Reason: "R", Message: "m", LastTransitionTime: before},
		}}}, false, before.AsTime()},
		{"another reason", &corev1.Pod{Status: &corev1.PodStatus{Conditions: []*corev1.PodCondition{
			{Type: "DisruptionTarget", Status: "True", Reason: "Other", Message: "m", LastTransitionTime: before},
		}}}, true, before.AsTime()},
		{"reset before", &corev1.Pod{Status: &corev1.PodStatus{Conditions: []*corev1.PodCondition{
			{Type: "Ready", Status: "True"}, {Type: "DisruptionTarget", Status: "False", LastTransitionTime: before},
		}}}, true, now.Truncate(time.Second)},
	} {
		conditions := max(len(tt.pod.GetStatus().GetConditions()), 1)
		changed := core.SetDisruptionTarget(tt.pod, "R", "m", now)
		got := core.PodCondition(tt.pod, core.PodDisruptionTarget)
		switch {
		case changed != tt.changed || len(tt.pod.GetStatus().GetConditions()) != conditions:
			t.Errorf("%s: changed %t, conditions %v", tt.name, changed, tt.pod.GetStatus().GetConditions())
		case got.GetStatus() != "True" || got.GetReason() != "R" || got.GetMessage() != "m" || !got.GetLastTransitionTime().AsTime().Equal(tt.since):
			t.Errorf("%s: the condition is %v, want one since %v", tt.name, got, tt.since)
		case got.GetObservedGeneration() != 0:
			t.Errorf("%s: the condition has a generation, which the agent does not report", tt.name)
		}
	}
	reporting := &corev1.Pod{Metadata: &metav1.ObjectMeta{Generation: 7}, Status: &corev1.PodStatus{ObservedGeneration: 6}}
	core.SetDisruptionTarget(reporting, "R", "m", now)
	if got := core.PodCondition(reporting, core.PodDisruptionTarget).GetObservedGeneration(); got != 7 {
		t.Errorf("the generation is %d, want 7", got)
	}
}
