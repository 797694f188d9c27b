package pods

import (
	"testing"
	"time"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestRenewing checks when a pod has the condition that all its containers are restarted, and since
// when.
func TestRenewing(t *testing.T) {
	pod := &corev1.Pod{Spec: &corev1.PodSpec{Containers: []*corev1.Container{{Name: "web"}}}, Status: &corev1.PodStatus{Phase: core.PodRunning}}
	w, noon := &worker{}, time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)
	if got := w.renewing(pod, noon); got != nil {
		t.Errorf("a pod without rules has %v", got)
	}
	pod.Spec.Containers[0].RestartPolicyRules = []*corev1.ContainerRestartRule{{Action: "RestartAllContainers"}}
	is := func(status, reason string, since time.Time) {
		t.Helper()
		got := w.renewing(pod, noon.Add(time.Hour))
		if got.GetStatus() != status || got.GetReason() != reason || !got.GetLastTransitionTime().AsTime().Equal(since) {
			t.Errorf("%v, want %s %s since %v", got, status, reason, since)
		}
	}
	pod.Status.Conditions = []*corev1.PodCondition{w.renewing(pod, noon)}
	is("False", "", noon)
	w.renewal = &checkpoint.Renewal{Container: "web", Code: 7}
	is("True", status.ReasonContainerExited, noon.Add(time.Hour))
	pod.Status.Phase = core.PodFailed
	is("False", "", noon)
}
