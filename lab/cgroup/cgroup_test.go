package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/osthread"
)

func needRoot(t *testing.T) Hierarchies {
	t.Helper()
	h, err := Find()
	if err == nil && os.Geteuid() != 0 {
		err = fmt.Errorf("not root")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return h
}

// start runs a long sleep inside path, in all hierarchies, the way the lab starts its processes.
func start(t *testing.T, h Hierarchies, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "300")
	startCommand(t, h, path, cmd)
	return cmd
}

func startCommand(t *testing.T, h Hierarchies, path string, cmd *exec.Cmd) {
	t.Helper()
	err := osthread.Do(func() error {
		if err := h.JoinThread(path); err != nil {
			return err
		}
		dir, err := h.Open(path)
		if err != nil {
			return err
		}
		defer dir.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		return cmd.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func TestSubtreeLife(t *testing.T) {
	h := needRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	top := fmt.Sprintf("xbtest-cgroup-%d", os.Getpid())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = h.Kill(ctx, top)
		_ = h.Remove(ctx, top)
	})
	for _, leaf := range []string{"a/x", "a/y", "b/x"} {
		if err := h.Create(filepath.Join(top, leaf), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Create(filepath.Join(top, "a"), true); err != nil {
		t.Fatal(err)
	}
	ax, ay, bx := start(t, h, top+"/a/x"), start(t, h, top+"/a/y"), start(t, h, top+"/b/x")

	pids, err := h.Pids(top + "/a")
	if err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{ax, ay} {
		if !slices.Contains(pids, cmd.Process.Pid) {
			t.Errorf("Pids(a) = %v, without %d", pids, cmd.Process.Pid)
		}
	}
	if slices.Contains(pids, bx.Process.Pid) {
		t.Errorf("Pids(a) = %v, with b's %d", pids, bx.Process.Pid)
	}

	// The children are ours to reap: an unreaped one keeps its place.
	done := make(chan error, 2)
	go func() { done <- ax.Wait() }()
	go func() { done <- ay.Wait() }()
	if err := h.Kill(ctx, top+"/a"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-done; err == nil {
			t.Error("a process of the killed cgroup ended well")
		}
	}
	if err := bx.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("killing a reached b: %v", err)
	}

	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if err := h.Remove(short, top); err == nil {
		t.Error("Remove of a cgroup in use succeeded")
	}
	go func() { done <- bx.Wait() }()
	if err := h.Kill(ctx, top); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := h.Remove(ctx, top); err != nil {
		t.Fatal(err)
	}
	if h.Exists(top) {
		t.Error("cgroup exists after Remove")
	}
	if err := h.Remove(ctx, top); err != nil {
		t.Errorf("second Remove: %v", err)
	}
	if pids, err := h.Pids(top); err != nil || len(pids) != 0 {
		t.Errorf("Pids of a missing cgroup = %v, %v", pids, err)
	}
}

func TestRemoveRefusesRoot(t *testing.T) {
	for _, path := range []string{"", "/"} {
		if err := (Hierarchies{Unified: t.TempDir()}).Remove(t.Context(), path); err == nil {
			t.Errorf("Remove(%q) succeeded", path)
		}
	}
}

func TestPrefixes(t *testing.T) {
	var got []string
	for p := range prefixes("/a/b/c") {
		got = append(got, p)
	}
	if want := []string{"", "a", "a/b", "a/b/c"}; !slices.Equal(got, want) {
		t.Errorf("prefixes = %q, want %q", got, want)
	}
}

// TestWeigh lets two processes compete for one processor: the one with eight times the weight gets
// most of it.
func TestWeigh(t *testing.T) {
	h := needRoot(t)
	top := fmt.Sprintf("xbtest-weigh-%d", os.Getpid())
	t.Cleanup(func() {
		if err := errors.Join(h.Kill(context.Background(), top), h.Remove(context.Background(), top)); err != nil {
			t.Error(err)
		}
	})
	if err := h.Create(top, true); err != nil {
		t.Fatal(err)
	}
	used := map[string]func() time.Duration{}
	for name, weight := range map[string]int{"light": 1, "heavy": 8} {
		path := filepath.Join(top, name)
		if err := errors.Join(h.Create(path, false), h.Weigh(path, weight)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("taskset", "-c", "0", "sh", "-c", "while :; do :; done")
		startCommand(t, h, path, cmd)
		used[name] = func() time.Duration {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
			ticks, err := strconv.Atoi(fields[11]) // utime
			if err != nil {
				t.Fatal(err)
			}
			return time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	for used["light"]()+used["heavy"]() < 2*time.Second {
		<-time.After(50 * time.Millisecond)
	}
	if light, heavy := used["light"](), used["heavy"](); heavy < 3*light {
		t.Errorf("the heavy one got %s, the light one %s", heavy, light)
	}
}
