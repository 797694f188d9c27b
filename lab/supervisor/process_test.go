package supervisor

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/lab/control"
	"github.com/xebec-project/xebec/lab/topology"
)

// here starts commands where the test runs.
type here struct{}

func (here) Start(cmd *exec.Cmd, _ string, _ int) error { return cmd.Start() }

// launch runs a shell script as a supervised process until the test ends or stop is called.
func launch(t *testing.T, script string) (p *process, log string, stop func(cause error)) {
	t.Helper()
	log = filepath.Join(t.TempDir(), "logs", "p.log")
	p = newProcess(topology.Process{Name: "p", Args: []string{"/bin/sh", "-c", script}, Log: log}, zap.NewNop())
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run(ctx, here{})
	}()
	stop = func(cause error) {
		cancel(cause)
		<-done
	}
	t.Cleanup(func() { stop(errKilled) })
	return p, log, stop
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestProcessIsRestarted(t *testing.T) {
	p, log, _ := launch(t, "echo started; exit 3")
	eventually(t, "two restarts", func() bool { return p.snapshot().Restarts >= 2 })
	if got := p.snapshot().LastExit; got != "exit status 3" {
		t.Errorf("last exit = %q", got)
	}
	// A restart counts from the process's start, which is before it has said anything.
	eventually(t, "the log of three runs", func() bool {
		out, _ := os.ReadFile(log)
		return strings.Count(string(out), "started") >= 3
	})
}

func TestProcessHoldAndStart(t *testing.T) {
	p, _, _ := launch(t, "exec sleep 300")
	eventually(t, "it runs", func() bool { return p.snapshot().State == control.Alive })
	first := p.snapshot().PID
	if err := p.kill(true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it ends", func() bool { return p.snapshot().PID == 0 })
	if err := p.kill(false); err == nil {
		t.Error("a process that does not run was killed")
	}
	// Longer than the first backoff.
	<-time.After(2 * minBackoff)
	if got := p.snapshot(); got.State != control.Held || got.PID != 0 {
		t.Errorf("held process is %s with pid %d", got.State, got.PID)
	}
	p.start()
	eventually(t, "it runs again", func() bool { return p.snapshot().State == control.Alive })
	if got := p.snapshot(); got.PID == first || got.Restarts != 1 {
		t.Errorf("after start: %+v", got)
	}
}

func TestHoldDuringBackoff(t *testing.T) {
	p, _, _ := launch(t, "exit 1")
	eventually(t, "it waits for a restart", func() bool { return p.snapshot().State == control.Backoff })
	if err := p.kill(true); err != nil {
		t.Fatal(err)
	}
	restarts := p.snapshot().Restarts
	<-time.After(2 * minBackoff)
	if got := p.snapshot(); got.State != control.Held || got.Restarts > restarts+1 {
		t.Errorf("held process: %+v", got)
	}
}

func TestProcessEnds(t *testing.T) {
	const script = `trap 'echo orderly; exit 0' TERM; echo ready; while :; do sleep 0.05; done`
	for name, test := range map[string]struct {
		cause   error
		orderly bool
	}{"asked": {nil, true}, "killed": {errKilled, false}} {
		t.Run(name, func(t *testing.T) {
			p, log, stop := launch(t, script)
			read := func() string {
				out, _ := os.ReadFile(log)
				return string(out)
			}
			eventually(t, "it is ready", func() bool { return strings.Contains(read(), "ready") })
			stop(test.cause)
			if got := strings.Contains(read(), "orderly"); got != test.orderly {
				t.Errorf("ended in order: %t, want %t", got, test.orderly)
			}
			if got := p.snapshot(); got.State != control.Off || got.PID != 0 {
				t.Errorf("state = %s, pid %d", got.State, got.PID)
			}
		})
	}
}

func TestProgramThatDoesNotExist(t *testing.T) {
	p := newProcess(topology.Process{Name: "p", Args: []string{"/no/such/program"}, Log: filepath.Join(t.TempDir(), "log")}, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.run(ctx, here{}); close(done) }()
	eventually(t, "the reason is reported", func() bool { return strings.Contains(p.snapshot().LastExit, "no such file") })
	cancel()
	<-done
}

func TestListeners(t *testing.T) {
	var want []string
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			t.Skip(err)
		}
		defer listener.Close()
		want = append(want, listener.Addr().String())
	}
	got := listeners(os.Getpid())
	for _, addr := range want {
		if !slices.Contains(got, addr) {
			t.Errorf("listeners = %v, without %s", got, addr)
		}
	}
}

// A socket that is connected, or of a process elsewhere, is none that this process listens on.
func TestOnlyListeners(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := listeners(os.Getpid()); slices.Contains(got, conn.LocalAddr().String()) {
		t.Errorf("listeners = %v, with a connection's %s", got, conn.LocalAddr())
	}
	if got := listeners(os.Getppid()); slices.Contains(got, listener.Addr().String()) {
		t.Errorf("the parent's listeners = %v, with this process's %s", got, listener.Addr())
	}
	if got := listeners(1 << 30); got != nil {
		t.Errorf("listeners of no process = %v", got)
	}
	for _, m := range [][]byte{nil, make([]byte, 71), make([]byte, 72)} {
		if addr, _, ok := parseListener(m); ok {
			t.Errorf("%d zero bytes are said to listen on %s", len(m), addr)
		}
	}
}

func TestTrimLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := trimLog(path, 10); err != nil {
		t.Errorf("no log: %v", err)
	}
	writer, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.WriteString("0123456789\n"); err != nil {
		t.Fatal(err)
	}
	if err := trimLog(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".1"); err == nil {
		t.Error("a small log was moved aside")
	}
	if err := trimLog(path, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteString("new\n"); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{path: "new\n", path + ".1": "0123456789\n"} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", filepath.Base(file), got, err)
		}
	}
}
