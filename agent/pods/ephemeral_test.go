package pods_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// debug adds an ephemeral container to a pod, as the control plane takes it.
func (n *node) debug(uid, target string, c *corev1.Container) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	p := proto.CloneOf(n.cluster.pods[uid])
	p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, core.NewEphemeralContainer(c, target))
	n.cluster.put(p)
}

func ephemeralStatus(p *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, s := range p.GetStatus().GetEphemeralContainerStatuses() {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// TestEphemeralContainers checks what containers that are added to a running pod see, and that they
// leave the pod as it was.
func TestEphemeralContainers(t *testing.T) {
	n := start(t)
	uid := n.create(pod("web", "exec sleep 1111", func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, container("other", "exec sleep 2222"))
	}))
	before := n.until(uid, "it runs", core.IsPodReady)
	running := func(name string) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool { return ephemeralStatus(p, name).GetState().GetRunning() != nil }
	}
	n.debug(uid, "main", container("look", "exec sleep 3333"))
	n.until(uid, "the ephemeral container runs", running("look"))
	if ps := n.in("web", "look", "ps"); !strings.Contains(ps, "sleep 1111") || strings.Contains(ps, "sleep 2222") {
		t.Errorf("with a target the ephemeral container sees\n%s", ps)
	}
	n.debug(uid, "", container("apart", "exec sleep 4444"))
	n.until(uid, "the second one runs", running("apart"))
	if ps := n.in("web", "apart", "ps"); strings.Contains(ps, "sleep 1111") {
		t.Errorf("without a target the ephemeral container sees\n%s", ps)
	}
	if host := strings.TrimSpace(n.in("web", "apart", "hostname")); host != "web" {
		t.Errorf("the ephemeral container is called %q", host)
	}

	// It goes on with the next agent, and ends for good with its target, of which it is a part.
	n.stop()
	n.agent()
	n.until(uid, "it still runs", running("look"))
	if err := n.rt.Kill(t.Context(), uid+"-main-0", 9); err != nil {
		t.Fatal(err)
	}
	p := n.until(uid, "it ends with its target, which comes again", func(p *corev1.Pod) bool {
		return ephemeralStatus(p, "look").GetState().GetTerminated() != nil && status(p).GetRestartCount() == 1 && core.IsPodReady(p)
	})
	if s := ephemeralStatus(p, "look"); s.GetRestartCount() != 0 || s.GetReady() || p.Status.Phase != "Running" {
		t.Errorf("phase %s, ephemeral container %v", p.Status.Phase, s)
	}
	if was := ephemeralStatus(before, "look"); was != nil {
		t.Errorf("before it was added it was %v", was)
	}

	// One that fails disturbs nothing.
	n.debug(uid, "", container("brief", "exit 3"))
	p = n.until(uid, "the exit is reported", func(p *corev1.Pod) bool {
		return ephemeralStatus(p, "brief").GetState().GetTerminated().GetExitCode() == 3
	})
	if !core.IsPodReady(p) || p.Status.Phase != "Running" {
		t.Errorf("after an ephemeral container's failure the pod is %v", p.Status)
	}
	n.delete(uid)
	n.untilGone(uid)
}

// TestEphemeralContainerOfCrashingPod checks that a pod whose own containers can't start can be
// looked into.
func TestEphemeralContainerOfCrashingPod(t *testing.T) {
	n := start(t)
	uid := n.create(pod("ill", "exit 1", func(p *corev1.Pod) {
		p.Spec.InitContainers = []*corev1.Container{container("never", "exit 1")}
	}))
	n.until(uid, "it crashes", func(p *corev1.Pod) bool {
		return len(p.Status.InitContainerStatuses) > 0 && p.Status.InitContainerStatuses[0].RestartCount > 0
	})
	n.debug(uid, "", container("look", "exec sleep 3333"))
	n.debug(uid, "main", container("wait", "exec sleep 3333"))
	n.until(uid, "the ephemeral container runs", func(p *corev1.Pod) bool { return ephemeralStatus(p, "look").GetState().GetRunning() != nil })
	p := n.until(uid, "one without its target waits", func(p *corev1.Pod) bool {
		return ephemeralStatus(p, "wait").GetState().GetWaiting().GetReason() == "CreateContainerConfigError"
	})
	if m := ephemeralStatus(p, "wait").GetState().GetWaiting().GetMessage(); !strings.Contains(m, "container main") {
		t.Errorf("it waits because %q", m)
	}
	n.delete(uid)
	n.untilGone(uid)
}
