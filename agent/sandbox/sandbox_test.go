package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/osthread"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("must run as root")
	}
	t.Skip("must run as root")
}

// inside runs f on a thread in the namespace at path.
func inside(t *testing.T, path string, f func() error) {
	t.Helper()
	err := osthread.Do(func() error {
		ns, err := os.Open(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), 0); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSandboxLivesUntilRemoved(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "ns")
	cfg := Config{Dir: dir, Hostname: "web-0"}
	s, created, err := Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Remove(dir) })
	if !created {
		t.Error("the first Create made nothing")
	}
	inside(t, s.UTS, func() error {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return err
		}
		if got := unix.ByteSliceToString(u.Nodename[:]); got != "web-0" {
			t.Errorf("hostname is %q", got)
		}
		return nil
	})
	inside(t, s.Net, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		if devices := strings.Count(string(b), ":"); devices < 1 || !strings.Contains(string(b), "lo:") {
			t.Errorf("devices of a new network namespace:\n%s", b)
		}
		if strings.Contains(string(b), "eth0") {
			t.Error("the sandbox is in the machine's network namespace")
		}
		return nil
	})
	first, err := os.Stat(s.Net)
	if err != nil {
		t.Fatal(err)
	}

	again, created, err := Create(cfg)
	if err != nil || created || again != s {
		t.Fatalf("second Create: %+v, created %v, %v", again, created, err)
	}
	if second, err := os.Stat(s.Net); err != nil || !os.SameFile(first, second) {
		t.Errorf("the second Create replaced the network namespace (%v)", err)
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("Remove left %s: %v", dir, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Error("Remove left mounts")
	}
	if err := Remove(dir); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
}

func TestHostNamespaces(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "ns")
	t.Cleanup(func() { Remove(dir) })
	s, created, err := Create(Config{Dir: dir, HostNetwork: true, HostIPC: true})
	if err != nil || created || s != (Sandbox{Shm: "/dev/shm"}) {
		t.Errorf("got %+v, created %v, %v", s, created, err)
	}
}
