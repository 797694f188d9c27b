package pods_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// restartAll makes an exit code of a container one at which all containers of the pod restart.
func restartAll(c *corev1.Container, policy string, code int32) *corev1.Container {
	c = rules(c, policy, "In", code)
	c.RestartPolicyRules[len(c.RestartPolicyRules)-1].Action = "RestartAllContainers"
	return c
}

// restarts are the counts of restarts of init containers and containers.
func restarts(p *corev1.Pod) []int32 {
	var out []int32
	for _, s := range slices.Concat(p.GetStatus().GetInitContainerStatuses(), p.GetStatus().GetContainerStatuses()) {
		out = append(out, s.GetRestartCount())
	}
	return out
}

// TestRestartAllContainers restarts all containers of a pod at the exit of one.
func TestRestartAllContainers(t *testing.T) {
	n := start(t)
	says := func(name, then string) *corev1.Container {
		return container(name, "echo "+name+" >>/data/order; "+then)
	}
	uid := n.create(pod("again", "", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		// The others wait for it whenever the pod begins.
		watcher := restartAll(says("watcher", "trap 'exit 0' TERM; sleep 0.2; echo watches >>/data/order; touch /tmp/up; until test -e /data/go; do sleep 0.05; done; rm /data/go; exit 88"), "Always", 88)
		watcher.StartupProbe = execProbe("test -e /tmp/up")
		watcher.StartupProbe.FailureThreshold = 100
		p.Spec.InitContainers = []*corev1.Container{says("prepare", "true"), watcher}
		p.Spec.Containers = []*corev1.Container{says("main", "trap 'exit 0' TERM; sleep 3600 & wait"), says("done", "exit 0")}
		scratch(p)
	}))
	data := filepath.Join(n.daemon.Dir, "pods", uid, "volumes/data")
	// begun reports whether the pod has begun for the nth time, and done what there is to do.
	begun := func(times int) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			b, _ := os.ReadFile(filepath.Join(data, "order"))
			s := p.GetStatus()
			return strings.Count(string(b), "\n") == 5*times && len(s.GetContainerStatuses()) == 2 && s.GetContainerStatuses()[0].GetState().GetRunning() != nil &&
				s.GetContainerStatuses()[1].GetState().GetTerminated() != nil && s.GetInitContainerStatuses()[1].GetReady() && s.GetPhase() == "Running"
		}
	}
	first := n.until(uid, "it runs", begun(1))
	if c := core.PodCondition(first, "AllContainersRestarting"); c.GetStatus() != "False" {
		t.Errorf("the condition is %v", c)
	}
	for times := 1; times <= 2; times++ {
		if times == 2 {
			// Neither the restart nor the right to another is lost with the agent.
			n.stop()
			n.agent()
		}
		if err := os.WriteFile(filepath.Join(data, "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		p := n.until(uid, "it has restarted", begun(times+1))
		if got := restarts(p); !slices.Equal(got, []int32{int32(times), int32(times), int32(times), int32(times)}) {
			t.Errorf("after %d times the restarts are %v", times, got)
		}
		if p.Status.PodIp != first.Status.PodIp {
			t.Errorf("its address is %s, and was %s", p.Status.PodIp, first.Status.PodIp)
		}
		if c := core.PodCondition(p, "AllContainersRestarting"); c.GetStatus() != "False" {
			t.Errorf("the condition is %v", c)
		}
		if e := p.Status.InitContainerStatuses[1].GetLastState().GetTerminated(); e.GetExitCode() != 88 {
			t.Errorf("the container that caused it is reported as %v", e)
		}
		if e := p.Status.ContainerStatuses[0].GetLastState().GetTerminated(); e.GetExitCode() != 137 {
			t.Errorf("the container that ran is reported as %v", e)
		}
	}
	b, err := os.ReadFile(filepath.Join(data, "order"))
	if err != nil {
		t.Fatal(err)
	}
	for life := range slices.Chunk(strings.Fields(string(b)), 5) {
		if slices.Sort(life[3:]); !slices.Equal(life, []string{"prepare", "watcher", "watches", "done", "main"}) {
			t.Errorf("the containers were started in the order %v", life)
		}
	}
	n.cluster.mu.Lock()
	if !slices.Contains(n.cluster.events, "again Normal AllContainersRestarting: Container watcher exited with code 88, all containers will be restarted") {
		t.Errorf("events are %v", n.cluster.events)
	}
	n.cluster.mu.Unlock()
	n.delete(uid)

	// The work asks for it and one that prepares it fails the second time, for which the pod's own
	// policy stands.
	fails := n.create(pod("fails", "", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		p.Spec.InitContainers = []*corev1.Container{container("prepare", "test -e /data/been && exit 1; touch /data/been")}
		p.Spec.Containers = []*corev1.Container{restartAll(container("main", "exit 42"), "Never", 42)}
		scratch(p)
	}))
	p := n.until(fails, "it failed", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	if got := restarts(p); !slices.Equal(got, []int32{1, 1}) || p.Status.InitContainerStatuses[0].GetState().GetTerminated().GetExitCode() != 1 {
		t.Errorf("status is %v", p.Status)
	}
	if c := core.PodCondition(p, "AllContainersRestarting"); c.GetStatus() != "False" {
		t.Errorf("the condition is %v", c)
	}

	// A pod whose work is done has ended, whatever a sidecar says to that.
	over := n.create(pod("over", "until test -e /data/heeds; do sleep 0.02; done", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		p.Spec.InitContainers = []*corev1.Container{restartAll(container("side", "trap 'exit 88' TERM; touch /data/heeds; sleep 3600 & wait"), "Always", 88)}
		p.Spec.TerminationGracePeriodSeconds = proto.Int64(600)
		scratch(p)
	}))
	p = n.until(over, "it has ended with its sidecar", func(p *corev1.Pod) bool {
		return p.Status.Phase == "Succeeded" && p.Status.InitContainerStatuses[0].GetState().GetTerminated() != nil
	})
	if got := restarts(p); !slices.Equal(got, []int32{0, 0}) || p.Status.InitContainerStatuses[0].State.Terminated.ExitCode != 88 {
		t.Errorf("status is %v", p.Status)
	}
	for _, uid := range []string{fails, over} {
		n.delete(uid)
	}
	for _, uid := range []string{uid, fails, over} {
		n.untilGone(uid)
	}
}
