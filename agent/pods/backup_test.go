package pods_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// restore takes the control plane back to an earlier state, and tells the set of it as an informer
// does: objects that differ from the last state, deleted objects, and then the end of the list.
func (c *cluster) restore(backup map[string]*corev1.Pod, restored func(uid string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := c.pods
	c.pods = maps.Clone(backup)
	c.revision += 1000
	for uid, pod := range backup {
		if restored(uid) && lost[uid].GetMetadata().GetResourceVersion() != pod.Metadata.ResourceVersion {
			c.set.Update(pod)
		}
	}
	for uid := range lost {
		if backup[uid] == nil {
			c.set.Remove(uid)
		}
	}
	c.set.Restated(slices.Collect(maps.Values(backup)), int64(c.revision))
}

// TestBackupRestored takes the control plane back in time under pods that run.
func TestBackupRestored(t *testing.T) {
	n := start(t)
	backup := map[string]*corev1.Pod{}
	keep := func(uid string) {
		backup[uid] = proto.CloneOf(n.cluster.get(uid))
	}
	pid := func(uid string) uint32 {
		list, err := n.rt.List(t.Context(), uid)
		if err != nil || len(list) != 1 {
			t.Fatalf("containers of %s: %+v, %v", uid, list, err)
		}
		return list[0].Pid
	}
	create := func(name, script string) (uid string) {
		uid = n.create(pod(name, script))
		n.until(uid, name+" runs", core.IsPodReady)
		return uid
	}

	// These two come back without the statuses that were written since; of one that was the last thing
	// that was restored.
	fresh, silent := pod("fresh", "sleep 3600"), pod("silent", "sleep 3600")
	for _, p := range []*corev1.Pod{fresh, silent} {
		n.create(p)
		keep(p.Metadata.Uid)
		n.until(p.Metadata.Uid, "it runs", core.IsPodReady)
	}
	kept := create("kept", "sleep 3600")
	keep(kept)
	// This one was not bound yet, and is bound again while its end takes a while; the last one was not
	// yet to be deleted.
	unbound := create("unbound", "trap '' TERM; touch /dev/shm/up; sleep 3600")
	doomed := create("doomed", "trap '' TERM; sleep 3600")
	keep(doomed)
	before := map[string]uint32{}
	for _, uid := range []string{fresh.Metadata.Uid, silent.Metadata.Uid, kept, unbound} {
		before[uid] = pid(uid)
	}
	n.delete(doomed)
	n.until(doomed, "it gets the stop signal", n.stopping)

	bound := n.cluster.get(unbound)
	n.cluster.restore(backup, func(uid string) bool { return uid != silent.Metadata.Uid })
	containerdtest.Eventually(t, 60*time.Second, "the pod that is not bound gets the stop signal", func() bool { return n.stopping(bound) })
	n.create(bound)

	for _, uid := range []string{fresh.Metadata.Uid, silent.Metadata.Uid, kept} {
		n.until(uid, "its status is written again", core.IsPodReady)
		if now := pid(uid); now != before[uid] {
			t.Errorf("pod %s was started again", n.cluster.get(uid).Metadata.Name)
		}
	}
	containerdtest.Eventually(t, 60*time.Second, "the pod that was bound again runs again", func() bool {
		list, err := n.rt.List(t.Context(), unbound)
		return err == nil && len(list) == 1 && list[0].Pid != 0 && list[0].Pid != before[unbound]
	})
	// Its container got the stop signal and may be killed, and restarts then; the pod stays.
	n.until(doomed, "the pod that is not to be deleted runs", core.IsPodReady)
	n.delete(doomed)
	n.untilGone(doomed)
}
