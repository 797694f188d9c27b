package pods_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// terminal is one end of an attachment.
type terminal struct {
	in  *io.PipeWriter
	end func()

	mu       sync.Mutex
	out, err bytes.Buffer
	resize   chan runtime.Size
	over     chan struct{}
	code     int32
	failed   error
}

type lockedBuffer struct {
	t *terminal
	b *bytes.Buffer
}

func (l lockedBuffer) Write(p []byte) (int, error) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	return l.b.Write(p)
}

// attach joins a container's streams, and returns once they are joined or can't be.
func (n *node) attach(podName, container string, stdin bool) *terminal {
	n.Helper()
	ctx, cancel := context.WithCancel(n.Context())
	t := &terminal{end: cancel, resize: make(chan runtime.Size), over: make(chan struct{})}
	joined := make(chan struct{})
	a := pods.Attachment{Stdout: lockedBuffer{t, &t.out}, Stderr: lockedBuffer{t, &t.err}, Resize: t.resize, Joined: func() error { close(joined); return nil }}
	var read *io.PipeReader
	if stdin {
		read, t.in = io.Pipe()
		a.Stdin = read
	}
	go func() {
		defer close(t.over)
		t.code, t.failed = n.set.Attach(ctx, "default", podName, container, a)
		if stdin {
			read.CloseWithError(t.failed) // later writes fail instead of blocking
		}
	}()
	n.Cleanup(func() { cancel(); <-t.over })
	select {
	case <-joined:
	case <-t.over:
	case <-time.After(20 * time.Second):
		n.Fatal("not attached within 20s")
	}
	return t
}

// knows waits until an agent that has just started has seen that the pod runs.
func (n *node) knows(podName string) {
	n.Helper()
	containerdtest.Eventually(n.T, 60*time.Second, "the agent has taken the pod up", func() bool {
		in, err := n.set.Container("default", podName, "", true, false)
		return err == nil && in.Running
	})
}

func (t *terminal) says(tt *testing.T, what string) {
	tt.Helper()
	containerdtest.Eventually(tt, 60*time.Second, "the container says "+what, func() bool { return strings.Contains(t.said(), what) })
}

func (t *terminal) said() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.String()
}

func interactive(once, tty bool) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		c := p.Spec.Containers[0]
		c.Stdin, c.StdinOnce, c.Tty = true, once, tty
	}
}

// TestAttachShell talks to a shell with a terminal that outlives agents and the one who talks.
func TestAttachShell(t *testing.T) {
	n := start(t)
	uid := n.create(pod("shell", "exec sh -i", interactive(false, true)))
	n.until(uid, "it runs", core.IsPodReady)
	first := n.attach("shell", "", true)
	io.WriteString(first.in, "X=kept; echo got-$((40+2))\n")
	first.says(t, "got-42")
	first.resize <- runtime.Size{Width: 101, Height: 33}
	containerdtest.Eventually(t, 60*time.Second, "the terminal has the size", func() bool {
		io.WriteString(first.in, "stty size\n")
		return strings.Contains(first.said(), "33 101")
	})
	first.end()
	<-first.over
	if !errors.Is(first.failed, context.Canceled) {
		t.Errorf("an attachment that was given up ended with %v", first.failed)
	}

	// Neither the end of one who was attached nor that of the agent is the shell's.
	n.stop()
	n.agent()
	n.knows("shell")
	second := n.attach("shell", "", true)
	watcher := n.attach("shell", "main", false)
	io.WriteString(second.in, "echo still-$X\n")
	second.says(t, "still-kept")
	watcher.says(t, "still-kept")

	// A keeper that was lost is restarted by the next agent; what the container writes meanwhile waits
	// for it.
	n.stop()
	killKeepers(t, filepath.Join(n.daemon.Dir, "pods", uid))
	n.agent()
	n.knows("shell")
	third := n.attach("shell", "", true)
	io.WriteString(third.in, "echo again-$X; exit 7\n")
	third.says(t, "again-kept")
	<-third.over
	if third.code != 7 || third.failed != nil {
		t.Errorf("the shell ended with %d, %v", third.code, third.failed)
	}
	p := n.until(uid, "the shell comes again", func(p *corev1.Pod) bool { return status(p).GetRestartCount() == 1 && core.IsPodReady(p) })
	if log := n.log(p, true); !strings.Contains(log, "got-42") || !strings.Contains(log, "again-kept") {
		t.Errorf("its log is %q", log)
	}
	fourth := n.attach("shell", "", true)
	io.WriteString(fourth.in, "echo new-$X.\n")
	fourth.says(t, "new-.")
	n.delete(uid)
	n.untilGone(uid)
	containerdtest.Eventually(t, 60*time.Second, "no keeper is left", func() bool { return len(keepers(filepath.Join(n.daemon.Dir, "pods", uid))) == 0 })
}

// keepers returns the processes that keep streams below a directory.
func keepers(dir string) []int {
	var out []int
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte("stream-keeper")) && bytes.Contains(b, []byte(dir)) {
			var pid int
			for _, c := range strings.Split(path, "/")[2] {
				pid = pid*10 + int(c-'0')
			}
			out = append(out, pid)
		}
	}
	return out
}

func killKeepers(t *testing.T, dir string) {
	t.Helper()
	all := keepers(dir)
	if len(all) != 1 {
		t.Fatalf("keepers %v, want one", all)
	}
	if err := unix.Kill(all[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	containerdtest.Eventually(t, 60*time.Second, "the keeper is gone", func() bool { return len(keepers(dir)) == 0 })
}

// TestAttachOnce pipes data through a container whose stdin ends with the first who attaches.
func TestAttachOnce(t *testing.T) {
	n := start(t)
	uid := n.create(pod("sum", "echo early; echo aside >&2; wc -c; echo done", interactive(true, false), func(p *corev1.Pod) { p.Spec.RestartPolicy = "Never" }))
	n.until(uid, "it runs", core.IsPodReady)
	containerdtest.Eventually(t, 60*time.Second, "it has spoken", func() bool { return strings.Contains(n.log(n.cluster.get(uid), false), "early") })
	a := n.attach("sum", "", true)
	io.WriteString(a.in, strings.Repeat("0123456789", 20_000))
	a.in.Close()
	<-a.over
	if a.failed != nil || a.code != 0 {
		t.Errorf("ended with %d, %v", a.code, a.failed)
	}
	if a.said() != "early\n200000\ndone\n" || a.err.String() != "aside\n" {
		t.Errorf("it said %q and, on stderr, %q", a.said(), a.err.String())
	}
	n.until(uid, "it ends well", func(p *corev1.Pod) bool { return p.Status.Phase == "Succeeded" })
	if log := n.log(n.cluster.get(uid), false); !strings.Contains(log, "200000") {
		t.Errorf("its log is %q", log)
	}
	late := n.attach("sum", "", false)
	if <-late.over; !errors.Is(late.failed, pods.ErrNotRunning) {
		t.Errorf("attaching to what has ended: %v", late.failed)
	}
}

// TestAttachToOutput watches a container that has neither stdin nor a terminal.
func TestAttachToOutput(t *testing.T) {
	n := start(t)
	uid := n.create(pod("plain", "echo before; until test -e /dev/shm/go; do sleep 0.02; done; echo out; echo err >&2; exit 4"))
	n.until(uid, "it runs", core.IsPodReady)
	containerdtest.Eventually(t, 60*time.Second, "it has spoken", func() bool { return strings.Contains(n.log(n.cluster.get(uid), false), "before") })
	refused := n.attach("plain", "", true)
	if <-refused.over; !errors.Is(refused.failed, pods.ErrNoStdin) {
		t.Errorf("passing stdin to a container without: %v", refused.failed)
	}
	a := n.attach("plain", "", false)
	if err := os.WriteFile(filepath.Join(n.daemon.Dir, "pods", uid, "ns/shm/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	<-a.over
	if a.code != 4 || a.failed != nil || a.said() != "out\n" || a.err.String() != "err\n" {
		t.Errorf("ended with %d, %v after %q and, on stderr, %q", a.code, a.failed, a.said(), a.err.String())
	}
}

// TestAttachAtTheEnd attaches to containers that end at once: it gets all that they wrote, or is
// notified that it is too late, and never the exit code alone.
func TestAttachAtTheEnd(t *testing.T) {
	n := start(t)
	joined := 0
	for i := range 10 {
		name := fmt.Sprintf("brief-%d", i)
		uid := n.create(pod(name, "echo quick; exit 3", interactive(true, false), func(p *corev1.Pod) { p.Spec.RestartPolicy = "Never" }))
		containerdtest.Eventually(t, 60*time.Second, "the container has been attached to, or has ended", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var out bytes.Buffer
			code, err := n.set.Attach(ctx, "default", name, "", pods.Attachment{
				Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard, Joined: func() error { return nil },
			})
			switch {
			case err == nil && code == 3 && out.String() == "quick\n":
				joined++
				return true
			case err == nil || ctx.Err() != nil || out.Len() > 0:
				t.Fatalf("%s: ended with %d, %v after %q; its log: %q", name, code, err, &out, n.log(n.cluster.get(uid), false))
			}
			return core.IsPodFinished(n.cluster.get(uid))
		})
		n.delete(uid)
		n.untilGone(uid)
	}
	t.Logf("%d of 10 came in time", joined)
}
