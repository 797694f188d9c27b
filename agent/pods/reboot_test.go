package pods_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// powerOff ends all that a machine without power does not keep: the agent, containerd, shims,
// containers, and the mounts that pin the namespaces of pods. powerOn starts containerd and an
// agent.
func (n *node) powerOff(uids ...string) {
	n.Helper()
	var doomed []int
	for _, uid := range uids {
		list, err := n.rt.List(n.Context(), uid)
		if err != nil {
			n.Fatal(err)
		}
		for _, s := range list {
			stat, err := os.ReadFile("/proc/" + strconv.Itoa(int(s.Pid)) + "/stat")
			if err != nil {
				n.Fatal(err)
			}
			shim, err := strconv.Atoi(strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[1])
			if err != nil || shim <= 1 {
				n.Fatalf("container %s has no shim: %d, %v", s.ID, shim, err)
			}
			doomed = append(doomed, shim, int(s.Pid))
		}
	}
	n.stop()
	n.daemon.Kill()
	for _, pid := range doomed {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			n.Fatal(err)
		}
	}
	for _, uid := range uids {
		pins, _ := filepath.Glob(filepath.Join(n.daemon.Dir, "pods", uid, "ns", "*"))
		for _, pin := range pins {
			if err := unix.Unmount(pin, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
				n.Fatal(err)
			}
		}
		n.wires.mu.Lock()
		delete(n.wires.up, uid)
		n.wires.mu.Unlock()
	}
}

func (n *node) powerOn() {
	n.daemon.Run()
	n.agent()
}

// TestNodeReturns switches a node off and on. One of its pods is deleted meanwhile, and the control
// plane can't be reached at first: only the static pod may start.
func TestNodeReturns(t *testing.T) {
	n := start(t)
	brief := func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(0) }
	static := func(p *corev1.Pod) {
		p.Metadata.Annotations = map[string]string{"kubernetes.io/config.source": "file"}
	}
	kept := n.create(pod("kept", "sleep 3600", brief))
	deleted := n.create(pod("deleted", "sleep 3600", brief))
	host := n.create(pod("host", "sleep 3600", brief, func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.HostIpc = true, true }))
	own := n.create(pod("own", "sleep 3600", brief, static))
	all := []string{kept, deleted, host, own}
	for _, uid := range all {
		n.until(uid, "it runs", core.IsPodReady)
	}
	attempt := func(uid string) int {
		list, err := n.rt.List(t.Context(), uid)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.State == runtime.Running {
				return s.Attempt
			}
		}
		return -1
	}

	// A restart of the agent alone ends nothing, also of a pod without namespaces of its own.
	n.cluster.setAway(true)
	n.stop()
	n.agent()
	for _, uid := range []string{kept, host} {
		if err := n.rt.Kill(t.Context(), runtime.ID(uid, "main", 0), 9); err != nil {
			t.Fatal(err)
		}
		containerdtest.Eventually(t, 60*time.Second, "its container comes again", func() bool { return attempt(uid) == 1 })
	}

	n.powerOff(all...)
	n.cluster.mu.Lock()
	delete(n.cluster.pods, deleted)
	n.cluster.mu.Unlock()
	n.powerOn()
	n.set.Confirm(own)
	containerdtest.Eventually(t, 60*time.Second, "the static pod starts without a control plane", func() bool { return attempt(own) == 1 })
	for _, uid := range []string{kept, deleted, host} {
		if got := attempt(uid); got >= 0 {
			t.Errorf("attempt %d of a container of pod %s runs, which nothing has confirmed", got, uid)
		}
	}

	// The control plane is back.
	n.cluster.setAway(false)
	n.set.Update(n.cluster.get(kept))
	n.set.Update(n.cluster.get(host))
	if err := n.set.Synced(t.Context(), map[string]bool{kept: true, host: true, own: true}); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []string{kept, host} {
		p := n.until(uid, "it runs again", func(p *corev1.Pod) bool { return core.IsPodReady(p) && status(p).RestartCount == 2 })
		if e := status(p).LastState.GetTerminated(); e.GetReason() != "ContainerStatusUnknown" {
			t.Errorf("the container ended as %v", e)
		}
	}
	n.untilGone(deleted)
	for _, uid := range []string{kept, host, own} {
		n.delete(uid)
		n.untilGone(uid)
	}
}
