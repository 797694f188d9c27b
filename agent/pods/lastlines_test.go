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

	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestLastLines has a container end while the process that writes its log is held up, as on a busy
// machine: who follows the log gets the last lines all the same, and they are what the pod's status
// tells of.
func TestLastLines(t *testing.T) {
	n := start(t)
	uid := n.create(pod("hasty", "while ! [ -e /go ]; do sleep 0.02; done; echo one; echo two; exit 3", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		p.Spec.Containers[0].TerminationMessagePolicy = "FallbackToLogsOnError"
	}))
	n.until(uid, "it runs", func(p *corev1.Pod) bool { return status(p).GetState().GetRunning() != nil })
	n.knows("hasty")
	in, err := n.set.Container("default", "hasty", "", true, false)
	if err != nil {
		t.Fatal(err)
	}
	var followed bytes.Buffer
	over := make(chan error, 1)
	go func() {
		over <- logs.Read(t.Context(), in.LogPath, logs.Options{Follow: true, Tail: -1}, in.Ended, &followed)
	}()

	writer := writerOf(t, in.LogPath)
	if err := unix.Kill(writer, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(writer, unix.SIGCONT) })
	if _, err := n.rt.Exec(t.Context(), in.ID, execConfig("touch /go", nil)); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(n.daemon.Dir, "pods", uid, "containers", "main.json")
	containerdtest.Eventually(t, 60*time.Second, "the end is recorded", func() bool {
		content, err := os.ReadFile(record)
		return err == nil && strings.Contains(string(content), `"Code":3`)
	})
	select {
	case err := <-over:
		t.Fatalf("the follower gave up before the log was written, with %q, %v", &followed, err)
	default:
	}
	if err := unix.Kill(writer, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-over; err != nil || followed.String() != "one\ntwo\n" {
		t.Errorf("followed %q, %v", &followed, err)
	}
	p := n.until(uid, "it has failed", func(p *corev1.Pod) bool { return status(p).GetState().GetTerminated() != nil })
	if got := status(p).GetState().GetTerminated().GetMessage(); got != "one\ntwo\n" {
		t.Errorf("its last words are %q", got)
	}
}

// writerOf finds the process that writes a log.
func writerOf(t *testing.T, path string) int {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if command, err := os.ReadFile(file); err == nil && strings.HasSuffix(string(command), "\x00"+path+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no process writes %s", path)
	return 0
}
