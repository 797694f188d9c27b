package pods_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestAgentKilled checks what an agent finds after one before it ended without notice.
func TestAgentKilled(t *testing.T) {
	n := start(t)
	long := n.create(pod("long", "echo from $COLOR; sleep 3600", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = execProbe("true")
		// That a busy machine once does not answer in time is no change of its status.
		p.Spec.Containers[0].ReadinessProbe.FailureThreshold = 100
		p.Spec.Containers[0].Env = []*corev1.EnvVar{{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: &corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}}}
	}))
	n.cluster.mu.Lock()
	n.cluster.maps["default/settings"] = &corev1.ConfigMap{Data: map[string]string{"color": "blue"}}
	n.cluster.mu.Unlock()
	wait := "until test -e /dev/shm/go; do sleep 0.02; done; "
	brief := n.create(pod("brief", wait+"exit 6", func(p *corev1.Pod) { p.Spec.RestartPolicy = "Never" }))
	doomed := n.create(pod("doomed", "sleep 3600"))
	orphan := n.create(pod("orphan", "sleep 3600"))
	before := map[string]*corev1.Pod{}
	for _, uid := range []string{long, brief, doomed, orphan} {
		before[uid] = n.until(uid, "it runs", core.IsPodReady)
	}
	pid := func(uid string) uint32 {
		list, err := n.rt.List(t.Context(), uid)
		if err != nil || len(list) != 1 {
			t.Fatalf("containers of %s: %+v, %v", uid, list, err)
		}
		return list[0].Pid
	}
	was := pid(long)
	n.stop()

	// While the agent is away one container ends, one pod is deleted, one vanishes.
	if err := os.WriteFile(filepath.Join(n.daemon.Dir, "pods", brief, "ns/shm/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.cluster.mu.Lock()
	n.cluster.set = nil
	n.cluster.mu.Unlock()
	n.delete(doomed)
	n.cluster.mu.Lock()
	delete(n.cluster.pods, orphan)
	writes := n.cluster.statuses
	n.cluster.mu.Unlock()

	n.agent()
	p := n.until(brief, "the exit is reported", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	if status(p).GetState().GetTerminated().GetExitCode() != 6 {
		t.Errorf("status is %v", p.Status)
	}
	n.untilGone(doomed)
	n.untilGone(orphan)
	if now := pid(long); now != was {
		t.Errorf("the running container was restarted: pid %d, was %d", now, was)
	}
	after := n.cluster.get(long)
	if !proto.Equal(after.Status, before[long].Status) {
		t.Errorf("the status of what ran on changed:\n%v\n%v", before[long].Status, after.Status)
	}
	n.cluster.mu.Lock()
	t.Logf("%d status writes after the restart", n.cluster.statuses-writes)
	n.cluster.mu.Unlock()

	// Now without a control plane, from what the agent keeps: the container dies and comes again with
	// its config.
	n.cluster.setAway(true)
	n.stop()
	n.agent()
	if err := n.rt.Kill(t.Context(), long+"-main-0", 9); err != nil {
		t.Fatal(err)
	}
	containerdtest.Eventually(t, 60*time.Second, "the container comes again without a control plane", func() bool {
		list, err := n.rt.List(t.Context(), long)
		return err == nil && len(list) == 1 && list[0].Attempt == 1 && list[0].State == runtime.Running
	})
	containerdtest.Eventually(t, 60*time.Second, "it has its config", func() bool { return n.log(after, false) == "from blue\n" })
	n.cluster.setAway(false)
	n.until(long, "the control plane learns of the restart", func(p *corev1.Pod) bool {
		return status(p).GetRestartCount() == 1 && status(p).GetLastState().GetTerminated().GetExitCode() == 137 && core.IsPodReady(p)
	})
}

// TestContainerdKilled checks that pods live through a kill -9 of containerd, and that what ended
// meanwhile is noticed.
func TestContainerdKilled(t *testing.T) {
	n := start(t)
	steady := n.create(pod("steady", "sleep 3600"))
	ends := n.create(pod("ends", "until test -e /dev/shm/go; do sleep 0.02; done; exit 5"))
	n.until(steady, "it runs", core.IsPodReady)
	n.until(ends, "it runs", core.IsPodReady)
	n.daemon.Kill()
	if err := os.WriteFile(filepath.Join(n.daemon.Dir, "pods", ends, "ns/shm/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	new := n.create(pod("new", "sleep 3600"))
	n.daemon.Run()
	n.until(ends, "the exit is noticed and the container restarted", func(p *corev1.Pod) bool {
		return status(p).GetLastState().GetTerminated().GetExitCode() == 5 && status(p).GetRestartCount() > 0
	})
	n.until(new, "a pod bound meanwhile runs", core.IsPodReady)
	if cs := status(n.cluster.get(steady)); cs.GetRestartCount() != 0 || cs.GetState().GetRunning() == nil {
		t.Errorf("the container that ran on is reported as %v", cs)
	}
	for _, uid := range []string{steady, ends, new} {
		n.delete(uid)
		n.untilGone(uid)
	}
}

// TestEndsWithoutContainerd lets containers end while containerd is down, and the agent too: how
// they ended is known to their shims and to the kernel, and reported as soon as both are back.
func TestEndsWithoutContainerd(t *testing.T) {
	n := start(t)
	never := func(p *corev1.Pod) { p.Spec.RestartPolicy = "Never" }
	wait := "until test -e /dev/shm/go; do sleep 0.02; done; "
	fails := n.create(pod("fails", wait+"echo seven >/dev/termination-log; exit 7", never))
	done := n.create(pod("done", wait+"exit 0", never))
	hog := n.create(pod("hog", wait+"x=0123456789abcdef; while true; do x=$x$x; done", never, func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Limits: map[string]*metav1.Quantity{"memory": {String_: "16Mi"}}}
	}))
	pids := map[string]uint32{}
	for _, uid := range []string{fails, done, hog} {
		n.until(uid, "it runs", core.IsPodReady)
		list, err := n.rt.List(t.Context(), uid)
		if err != nil || len(list) != 1 {
			t.Fatalf("containers of %s: %+v, %v", uid, list, err)
		}
		pids[uid] = list[0].Pid
	}
	n.daemon.Kill()
	n.stop()
	for uid, pid := range pids {
		if err := os.WriteFile(filepath.Join(n.daemon.Dir, "pods", uid, "ns/shm/go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		containerdtest.Eventually(t, 60*time.Second, "the container exits while no agent runs", func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || strings.Contains(string(stat), ") Z")
		})
	}
	n.daemon.Run()
	n.agent()
	for _, c := range []struct {
		uid, phase, reason, message string
		code                        int32
	}{
		{fails, "Failed", "Error", "seven\n", 7}, {done, "Succeeded", "Completed", "", 0}, {hog, "Failed", "OOMKilled", "", 137},
	} {
		p := n.until(c.uid, "its end is reported", func(p *corev1.Pod) bool { return p.Status.Phase == c.phase })
		if e := status(p).GetState().GetTerminated(); e.GetExitCode() != c.code || e.GetReason() != c.reason || e.GetMessage() != c.message || e.GetFinishedAt() == nil {
			t.Errorf("%s ended as %v", p.Metadata.Name, e)
		}
		n.delete(c.uid)
		n.untilGone(c.uid)
	}
}
