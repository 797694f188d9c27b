package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/lab/cgroup"
)

func needRoot(t *testing.T) cgroup.Hierarchies {
	t.Helper()
	hier, err := cgroup.Find()
	if err == nil && os.Geteuid() != 0 {
		err = fmt.Errorf("not root")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return hier
}

// run runs a command in the machine to its end and returns its output.
func run(t *testing.T, m *Machine, name string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.Start(cmd, "test", 1); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &out)
	}
	return strings.TrimSpace(out.String())
}

// eventually fails the test when cond stays false.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestMachines(t *testing.T) {
	hier := needRoot(t)
	before := snapshot(t)
	prefix := fmt.Sprintf("xbtm%d", os.Getpid())
	mounted := NetnsDirMounted()
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("10.89.250.11 one\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	wire, err := CreateWire(prefix+"-wire", Segment{Router: netip.MustParsePrefix("10.89.250.1/24")})
	if err != nil {
		t.Fatal(err)
	}
	boot := func(name, addr string) *Machine {
		m, err := Boot(hier, wire, Config{
			Name: name, Namespace: prefix + "-" + name, Addr: netip.MustParseAddr(addr),
			Cgroup: prefix + "/" + name, Files: map[string]string{"/etc/hosts": hosts},
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one, two := boot("one", "10.89.250.11"), boot("two", "10.89.250.12")
	closed := false
	shutDown := func() {
		if closed {
			return
		}
		closed = true
		ctx := context.Background()
		for _, m := range []*Machine{one, two} {
			if err := m.Kill(ctx); err != nil {
				t.Error(err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := wire.Delete(); err != nil {
			t.Error(err)
		}
		if err := hier.Remove(ctx, prefix); err != nil {
			t.Error(err)
		}
		if !mounted {
			if err := ReleaseNetnsDir(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(shutDown)

	if got := snapshot(t).network; got != before.network {
		t.Errorf("the real machine's network changed:\n%s\nbefore:\n%s", got, before.network)
	}
	if got := run(t, one, "hostname"); got != "one" {
		t.Errorf("hostname = %q", got)
	}
	if got := run(t, one, "cat", "/etc/hosts"); !strings.Contains(got, "10.89.250.11 one") {
		t.Errorf("/etc/hosts = %q", got)
	}
	if got := run(t, one, "ls", "/sys/class/net"); !strings.Contains(got, "eth0") || len(strings.Fields(got)) > 3 {
		t.Errorf("/sys/class/net = %q", got)
	}
	run(t, one, "touch", "/run/mark")
	if _, err := os.Stat("/run/mark"); err == nil {
		t.Error("/run is shared with the real machine")
	}
	if got := run(t, two, "ls", "/run"); strings.Contains(got, "mark") {
		t.Error("/run is shared between machines")
	}
	if got := run(t, one, "stat", "-f", "-c", "%T", "/sys/fs/bpf"); got != "bpf_fs" {
		t.Errorf("/sys/fs/bpf is a %s", got)
	}
	if got := run(t, one, "cat", "/proc/self/cgroup"); strings.Count(got, prefix+"/one/test") != len(hier.Legacy)+1 {
		t.Errorf("cgroups of a process are:\n%s", got)
	}
	if got := run(t, one, "ls", hier.Unified); !strings.Contains(got, prefix) {
		t.Error("the machine does not see the cgroup hierarchy")
	}

	// An address beyond the wire is refused, not waited for.
	err = one.net.Do(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := new(net.Dialer).DialContext(ctx, "tcp4", "10.88.0.1:80")
		return err
	})
	if err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("dialing beyond the wire: %v, want unreachable", err)
	}

	var listener net.Listener
	if err := two.net.Do(func() error {
		listener, err = net.Listen("tcp4", "10.89.250.12:7777")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	target := netip.MustParseAddrPort("10.89.250.12:7777")
	reach := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		conn, err := wire.Dial(ctx, target)
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := reach(5 * time.Second); err != nil {
		t.Fatalf("dialing from the wire: %v", err)
	}
	if err := wire.Cut("two"); err != nil {
		t.Fatal(err)
	}
	if err := reach(200 * time.Millisecond); err == nil {
		t.Error("a machine that is cut off was reached")
	}
	if err := wire.Heal("two"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the healed machine is reached", func() bool { return reach(time.Second) == nil })

	// Others go on sending to a machine's card for a while when it is started again: it must be the
	// same one.
	card := run(t, two, "cat", "/sys/class/net/eth0/address")
	if other := run(t, one, "cat", "/sys/class/net/eth0/address"); other == card {
		t.Errorf("two machines have the card %s", card)
	}
	if err := errors.Join(listener.Close(), two.Kill(t.Context()), two.Close()); err != nil {
		t.Fatal(err)
	}
	two = boot("two", "10.89.250.12")
	if again := run(t, two, "cat", "/sys/class/net/eth0/address"); again != card {
		t.Errorf("started again, the machine has the card %s instead of %s", again, card)
	}

	refs := one.References()
	var out bytes.Buffer
	inside := exec.Command("hostname")
	inside.Stdout = &out
	if err := refs.Start(hier, inside, "shell"); err != nil {
		t.Fatal(err)
	}
	if err := inside.Wait(); err != nil || strings.TrimSpace(out.String()) != "one" {
		t.Errorf("hostname by references = %q, %v", &out, err)
	}

	// A killed machine takes its mounts along, although they are held by a process of it.
	sleeper := exec.Command("sh", "-c", "mkdir /run/m && mount -t tmpfs none /run/m && echo ready && exec sleep 300")
	ready, err := sleeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Start(sleeper, "sleeper", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleeper.Wait() }()
	if err := one.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the sleeper ended well")
	}
	shutDown()
	eventually(t, "everything is gone", func() bool { return snapshot(t).holds(prefix) == "" })
	after := snapshot(t)
	if before.network != after.network {
		t.Errorf("network after:\n%s\nbefore:\n%s", after.network, before.network)
	}
}

// state is what a machine must leave as it was.
type state struct {
	network, mounts, names, cgroups string
}

func snapshot(t *testing.T) state {
	t.Helper()
	output := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return string(out)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return state{
		// Addresses and routes that others gave to this machine for a while have less of it left each
		// time one looks.
		network: regexp.MustCompile(`(valid_lft|preferred_lft|expires) \d+sec`).ReplaceAllString(
			output("ip", "-o", "link", "show")+output("ip", "-4", "-o", "addr", "show")+output("ip", "route", "show", "table", "all"), ""),
		mounts:  string(mounts),
		names:   output("ip", "netns", "list"),
		cgroups: output("find", "/sys/fs/cgroup", "-maxdepth", "2", "-type", "d"),
	}
}

// holds returns which part still mentions name, empty when none does.
func (s state) holds(name string) string {
	for part, text := range map[string]string{"mounts": s.mounts, "netns": s.names, "cgroups": s.cgroups} {
		if strings.Contains(text, name) {
			return part
		}
	}
	return ""
}
