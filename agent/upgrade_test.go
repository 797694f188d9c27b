package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// TestUpgrade replaces the agent's program under running pods, as a package or a playbook does, and
// checks that nothing of them notices: processes, addresses, logs, statuses.
func TestUpgrade(t *testing.T) {
	containerdtest.Need(t)
	versioned := func(version string) string {
		return buildAgent(t, "-ldflags", "-X github.com/xebec-project/xebec/internal/version.version="+version)
	}
	old, next := versioned("v0.0.1"), versioned("v0.0.2")
	n := start(t, func(n *node) {
		n.program = filepath.Join(n.daemon.Dir, "xebec-agent")
		if err := os.Rename(old, n.program); err != nil && exec.Command("mv", old, n.program).Run() != nil {
			t.Fatal(err)
		}
	})
	n.giveCIDR()
	n.importImage()
	// A clock's ticks show a gap in the log, and its number of starts a restart.
	for i := range 3 {
		n.pod(fmt.Sprint("clock-", i), "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.1; done", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 10, FailureThreshold: 100, Handler: &corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
		})
	}
	before, pids := map[string]*corev1.Pod{}, map[string]string{}
	for i := range 3 {
		name := fmt.Sprint("clock-", i)
		before[name] = n.podUntil(name, "it is ready", core.IsPodReady)
		pids[name] = n.pids(before[name].Metadata.Uid)
	}
	version := func() string {
		node, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		if err != nil {
			t.Fatal(err)
		}
		return node.GetStatus().GetNodeInfo().GetKubeletVersion()
	}
	n.until("the node tells the old version", func() bool { return version() == "v0.0.1" })

	if err := n.agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-n.exited
	// Log writers run the old file, which a rename does not disturb.
	if out, err := exec.Command("sh", "-c", "cp "+next+" "+n.program+".new && mv "+n.program+".new "+n.program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.run()
	n.until("the node tells the new version", func() bool { return version() == "v0.0.2" })
	n.pod("new", "sleep 3600")
	n.podUntil("new", "a pod runs under the new version", core.IsPodReady)
	for name, was := range before {
		now := n.podUntil(name, "it is ready", core.IsPodReady)
		if got := n.pids(now.Metadata.Uid); got != pids[name] {
			t.Errorf("%s runs as %s, before the upgrade as %s", name, got, pids[name])
		}
		if !proto.Equal(now.Status, was.Status) {
			t.Errorf("the status of %s was\n%v\nand is\n%v", name, was.Status, now.Status)
		}
		last := 0
		n.until("its log goes on", func() bool {
			log, err := n.logs(&nodev1.LogsRequest{Target: &nodev1.Target{Namespace: "default", Pod: name}})
			if err != nil {
				return false
			}
			lines := strings.Split(strings.TrimSpace(log), "\n")
			for i, line := range lines {
				if line != fmt.Sprint("tick ", i) {
					t.Fatalf("line %d of %s is %q", i, name, line)
				}
			}
			last = max(last, len(lines)-20)
			return last > 0
		})
		if out, code, err := n.exec(name, "", "echo", "hello"); err != nil || code != 0 || out != "hello\n" {
			t.Errorf("exec in %s: %q, %d, %v", name, out, code, err)
		}
	}
}

// pids returns the processes of a pod's containers as containerd tells them.
func (n *node) pids(uid string) string {
	n.Helper()
	out, err := exec.Command("ctr", "--address", n.daemon.Address, "--namespace", "agent-test", "tasks", "list").Output()
	if err != nil {
		n.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, uid) {
			found = append(found, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(found, ", ")
}
