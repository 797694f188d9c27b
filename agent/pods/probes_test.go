package pods_test

import (
	"bytes"
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
)

// TestProbeLeftovers counts the processes that probes and hooks leave in their containers.
func TestProbeLeftovers(t *testing.T) {
	n := start(t)
	command := func(script string) *corev1.ExecAction {
		return &corev1.ExecAction{Command: []string{"sh", "-c", script}}
	}
	p := pod("probed", "", func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = proto.Int64(0)
		p.Spec.Containers = nil
		for name, script := range map[string]string{
			"late":   "echo x >> /h/late; sleep 1000 & sleep 1001; true",
			"leaves": "echo x >> /h/leaves; sleep 1002 & exit 0",
			"big":    "echo x >> /h/big; busybox yes yesyesyesyesyesyesyes | busybox head -c 2000000",
		} {
			c := container(name, "while :; do sleep 0.1 & wait $!; done")
			c.ReadinessProbe = &corev1.Probe{Handler: &corev1.ProbeHandler{Exec: command(script)}, PeriodSeconds: 1, TimeoutSeconds: 5}
			if name == "late" {
				c.ReadinessProbe.TimeoutSeconds = 1
			}
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: command("sleep 2000 & exit 0")}}
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	})
	journal(t, p)
	dir := p.Spec.Volumes[0].VolumeSource.HostPath.Path
	uid := n.create(p)
	n.until(uid, "all but the late one are ready", func(p *corev1.Pod) bool {
		ready := map[string]bool{}
		for _, s := range p.Status.ContainerStatuses {
			ready[s.Name] = s.Ready
		}
		return len(ready) == 3 && !ready["late"] && ready["leaves"] && ready["big"]
	})
	for _, c := range p.Spec.Containers {
		containerdtest.Eventually(t, time.Minute, "several probes have run in "+c.Name, func() bool {
			b, _ := os.ReadFile(filepath.Join(dir, c.Name))
			return bytes.Count(b, []byte("x")) >= 5
		})
		var out bytes.Buffer
		if code, err := n.rt.Exec(t.Context(), runtime.ID(uid, c.Name, 0), runtime.ExecConfig{Command: []string{"busybox", "ps", "-o", "args"}, Stdout: &out}); err != nil || code != 0 {
			t.Fatalf("ps: code %d, %v", code, err)
		}
		// One probe may run at the moment.
		for _, s := range []string{"sleep 1000", "sleep 1001", "sleep 1002"} {
			if got := strings.Count(out.String(), "\n"+s); got > 1 {
				t.Errorf("container %s has %d times %q", c.Name, got, s)
			}
		}
		if strings.Count(out.String(), "\nsleep 2000") != 1 {
			t.Errorf("container %s does not run what its postStart hook started:\n%s", c.Name, &out)
		}
		if zombies := strings.Count(out.String(), "[sleep]"); zombies > 2 {
			t.Errorf("container %s holds %d ended processes:\n%s", c.Name, zombies, &out)
		}
	}
	n.delete(uid)
	n.untilGone(uid)
}

// TestCommandsOfAnAgentThatIsGone restarts the agent while a probe runs.
func TestCommandsOfAnAgentThatIsGone(t *testing.T) {
	n := start(t)
	p := pod("probed", "while :; do sleep 0.1 & wait $!; done", func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = proto.Int64(0)
	})
	uid := n.create(p)
	n.until(uid, "it runs", core.IsPodReady)
	id := runtime.ID(uid, "main", 0)
	over := make(chan error, 1)
	go func() {
		_, err := n.rt.Exec(t.Context(), id, runtime.ExecConfig{Command: []string{"sh", "-c", "sleep 1000 & sleep 1001"}})
		over <- err
	}()
	count := func() int {
		var out bytes.Buffer
		if _, err := n.rt.Exec(t.Context(), id, runtime.ExecConfig{Command: []string{"busybox", "ps", "-o", "args"}, Stdout: &out}); err != nil {
			t.Fatal(err)
		}
		return strings.Count(out.String(), "\nsleep 100")
	}
	containerdtest.Eventually(t, 60*time.Second, "the command runs", func() bool { return count() == 2 })
	n.stop()
	n.agent()
	n.until(uid, "it runs on", core.IsPodReady)
	containerdtest.Eventually(t, 60*time.Second, "the command has ended", func() bool { return count() == 0 })
	n.until(uid, "the container goes on", func(p *corev1.Pod) bool { return core.IsPodReady(p) && status(p).RestartCount == 0 })
	<-over
	n.delete(uid)
	n.untilGone(uid)
}
