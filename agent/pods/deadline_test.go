package pods_test

import (
	goruntime "runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestDeadlineLeavesNothing deletes a pod long before its deadline: nothing must wait for that any
// more.
func TestDeadlineLeavesNothing(t *testing.T) {
	n := start(t)
	uid := n.create(pod("brief", "trap 'exit 0' TERM; sleep 3600 & wait", func(p *corev1.Pod) {
		p.Spec.ActiveDeadlineSeconds, p.Spec.TerminationGracePeriodSeconds = proto.Int64(3600), proto.Int64(0)
	}))
	n.until(uid, "it runs", core.IsPodReady)
	n.delete(uid)
	n.untilGone(uid)
	containerdtest.Eventually(t, 60*time.Second, "nothing refers to the pod", func() bool {
		goruntime.GC()
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		last, removed := n.cluster.removed[uid]
		return removed && last.Value() == nil
	})
}

// TestDeadlineWithoutControlPlane restarts an agent while the control plane does not know when the
// pod began.
func TestDeadlineWithoutControlPlane(t *testing.T) {
	n := start(t)
	n.cluster.setAway(true)
	p := pod("slow", "trap 'exit 0' TERM; sleep 3600 & wait", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = proto.Int64(3600) })
	uid, began := n.create(p), time.Now()
	n.set.Update(n.cluster.get(uid))
	running := func() bool {
		list, err := n.rt.List(t.Context(), uid)
		return err == nil && len(list) == 1 && list[0].State == runtime.Running
	}
	containerdtest.Eventually(t, 60*time.Second, "it runs", running)
	n.stop()
	n.agent()
	containerdtest.Eventually(t, 60*time.Second, "it runs on", running)
	restarted := time.Now()
	changed := proto.CloneOf(n.cluster.get(uid))
	changed.Spec.ActiveDeadlineSeconds = proto.Int64(int64(restarted.Sub(began).Seconds()) + 1)
	n.set.Update(changed)
	containerdtest.Eventually(t, 60*time.Second, "its deadline ends it", func() bool { return !running() })
	n.cluster.setAway(false)
	got := n.until(uid, "the control plane learns of it", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" && p.Status.Reason == "DeadlineExceeded" })
	if start := got.Status.StartTime.AsTime(); start.After(restarted) {
		t.Errorf("the pod's start time is %v, after the agent's restart at %v", start, restarted)
	}
	n.delete(uid)
	n.untilGone(uid)
}
