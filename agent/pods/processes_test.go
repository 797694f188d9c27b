package pods_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// in runs a command in a container of a pod and returns what it says.
func (n *node) in(podName, container, command string) string {
	n.Helper()
	in, err := n.set.Container("default", podName, container, true, false)
	if err != nil {
		n.Fatal(err)
	}
	var out strings.Builder
	if _, err := n.rt.Exec(n.Context(), in.ID, execConfig(command, &out)); err != nil {
		n.Fatal(err)
	}
	return out.String()
}

// first returns the process that keeps the pod's process namespace.
func (n *node) first(uid string) int {
	n.Helper()
	pids, err := n.rt.Placed(uid, "reaper")
	if err != nil || len(pids) != 1 {
		n.Fatalf("first processes of the pod: %v, %v", pids, err)
	}
	return pids[0]
}

// TestSharedProcesses checks that the containers of a pod see each other's processes when it asks
// for that, whatever happens to the agent, and that what a container leaves behind is collected.
func TestSharedProcesses(t *testing.T) {
	n := start(t)
	uid := n.create(pod("shared", "exec sleep 1111", func(p *corev1.Pod) {
		p.Spec.ShareProcessNamespace = proto.Bool(true)
		p.Spec.Containers = append(p.Spec.Containers, container("other", "exec sleep 2222"))
	}))
	n.until(uid, "it runs", core.IsPodReady)
	for _, c := range []string{"main", "other"} {
		if ps := n.in("shared", c, "ps"); !strings.Contains(ps, "sleep 1111") || !strings.Contains(ps, "sleep 2222") || !strings.Contains(ps, "reaper") {
			t.Errorf("container %s sees\n%s", c, ps)
		}
	}
	// A container's root has no more of the first process than its name, and can't end it.
	for _, command := range []string{"ls -A /proc/1/root/ 2>&1; cat /proc/1/environ 2>&1", "kill -9 1; kill -15 1; kill -1 1; echo"} {
		if out := n.in("shared", "main", command); strings.Contains(out, "etc") || strings.Contains(out, "PATH") {
			t.Errorf("%s shows %q", command, out)
		}
	}
	if st, err := os.ReadFile("/proc/" + strconv.Itoa(n.first(uid)) + "/status"); err != nil || !strings.Contains(string(st), "CapEff:\t0000000000000000") || !strings.Contains(string(st), "Uid:\t65535") {
		t.Errorf("the first process runs as %s, %v", st, err)
	}
	n.in("shared", "main", "(sleep 0.05 & exec true) & for i in 1 2 3; do (sleep 0.0$i &) ; done")
	containerdtest.Eventually(t, 60*time.Second, "orphans are collected", func() bool { return !strings.Contains(n.in("shared", "other", "ps"), "Z") })

	keeper := n.first(uid)
	n.stop()
	n.agent()
	n.until(uid, "it still runs", core.IsPodReady)
	if err := n.rt.Kill(t.Context(), uid+"-main-0", 9); err != nil {
		t.Fatal(err)
	}
	n.until(uid, "the container comes again", func(p *corev1.Pod) bool { return status(p).GetRestartCount() == 1 && core.IsPodReady(p) })
	if now := n.first(uid); now != keeper {
		t.Errorf("the first process is %d, was %d", now, keeper)
	}
	if ps := n.in("shared", "main", "ps"); !strings.Contains(ps, "sleep 2222") {
		t.Errorf("after a restart the container sees\n%s", ps)
	}

	// Who ends the first process ends all; the pod comes again with a new one.
	if err := unix.Kill(keeper, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.until(uid, "all containers come again", func(p *corev1.Pod) bool {
		cs := p.Status.ContainerStatuses
		return len(cs) == 2 && cs[0].RestartCount == 2 && cs[1].RestartCount == 1 && core.IsPodReady(p)
	})
	if now := n.first(uid); now == keeper {
		t.Error("the first process was not replaced")
	}
	if ps := n.in("shared", "other", "ps"); !strings.Contains(ps, "sleep 1111") {
		t.Errorf("after the loss of the first process the container sees\n%s", ps)
	}
	last := n.first(uid)
	n.delete(uid)
	n.untilGone(uid)
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(last), "root", "proc")); !os.IsNotExist(err) {
		t.Errorf("process %d still runs (%v)", last, err)
	}
}

// TestOwnProcesses checks that containers do not see each other without asking for it.
func TestOwnProcesses(t *testing.T) {
	n := start(t)
	uid := n.create(pod("apart", "exec sleep 1111", func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, container("other", "exec sleep 2222"))
	}))
	n.until(uid, "it runs", core.IsPodReady)
	if ps := n.in("apart", "main", "ps"); strings.Contains(ps, "sleep 2222") {
		t.Errorf("container main sees\n%s", ps)
	}
	if pids, err := n.rt.Placed(uid, "reaper"); err != nil || len(pids) > 0 {
		t.Errorf("first processes %v, %v", pids, err)
	}
}
