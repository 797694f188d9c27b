package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
)

// TestUnit runs the line by which the agent's unit stops it, as systemd does, and checks that
// nothing that pods need to end is taken from them before.
func TestUnit(t *testing.T) {
	b, err := os.ReadFile("../ansible/roles/node/templates/xebec-agent.service.j2")
	if err != nil {
		t.Fatal(err)
	}
	setting := func(name string) string {
		t.Helper()
		found := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindStringSubmatch(string(b))
		if found == nil {
			t.Fatalf("the unit has no %s", name)
		}
		return found[1]
	}
	for _, needed := range []string{"network-online.target", "containerd.service"} {
		if !slices.Contains(strings.Fields(setting("After")), needed) {
			t.Errorf("%s may stop before the agent", needed)
		}
	}
	// What both have by themselves is the same.
	want := fmt.Sprintf("{{ xebec_agent_config.shutdownGracePeriod | default('%v') }} 30s", agent.DefaultConfig().ShutdownGracePeriod)
	if got := setting("TimeoutStopSec"); got != want {
		t.Errorf("the agent has %s to stop, not %s", got, want)
	}
	script, quoted := strings.CutPrefix(setting("ExecStop"), "-/bin/sh -c '")
	script, closed := strings.CutSuffix(script, "'")
	if !quoted || !closed {
		t.Fatalf("the unit stops the agent by %s", setting("ExecStop"))
	}
	script = strings.ReplaceAll(script, "$$", "$")

	for state, notified := range map[string]bool{"running": false, "degraded": false, "stopping": true} {
		t.Run(state, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\ntest \"$1\" = is-system-running && echo "+state+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			stays := exec.Command("sh", "-c", "trap 'touch notified; exit 0' PWR; touch heeds; while :; do sleep 0.05; done")
			stays.Dir = dir
			if err := stays.Start(); err != nil {
				t.Fatal(err)
			}
			exited := make(chan struct{})
			go func() {
				defer close(exited)
				_ = stays.Wait()
			}()
			defer func() {
				_ = stays.Process.Kill()
				<-exited
			}()
			exists := func(name string) bool {
				_, err := os.Stat(filepath.Join(dir, name))
				return err == nil
			}
			containerdtest.Eventually(t, 30*time.Second, "what stands for the agent heeds the signal", func() bool { return exists("heeds") })
			stop := exec.Command("/bin/sh", "-c", script)
			stop.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), fmt.Sprintf("MAINPID=%d", stays.Process.Pid))
			out, err := stop.CombinedOutput()
			if err != nil {
				t.Errorf("the line failed: %v\n%s", err, out)
			}
			gone := unix.Kill(stays.Process.Pid, 0) != nil
			if gone != notified || exists("notified") != notified {
				t.Errorf("the agent was notified of the shutdown: %v, and had ended when the line did: %v; want both %v", exists("notified"), gone, notified)
			}
		})
	}
}
