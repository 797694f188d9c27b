package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/lab/cgroup"
	"github.com/xebec-project/xebec/lab/control"
)

// binDir makes a directory of programs that are all this test, or skips the test where labs can't
// run.
func binDir(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := scratch(t)
	for _, name := range []string{"xebec", "xebecd", "xebec-agent"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	spec, err := Options{Name: "check", Masters: 1, Nodes: 1, BinDir: dir, StateDir: dir}.spec()
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(spec); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return dir
}

// scratch makes a directory in memory with a short name.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "xbt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// up brings a lab up and takes it down after the test.
func up(t *testing.T, options Options) *Lab {
	t.Helper()
	options.NoWait = true
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Cleanup(func() {
		if err := Down(context.Background(), DownOptions{Name: options.Name}); err != nil {
			t.Error(err)
		}
	})
	lab, err := Up(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

func labName(suffix string) string { return fmt.Sprintf("t%d%s", os.Getpid(), suffix) }

// eventually fails the test when cond stays false.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func status(t *testing.T, lab *Lab) *control.Status {
	t.Helper()
	s, err := lab.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hostOf(t *testing.T, lab *Lab, name string) control.Host {
	t.Helper()
	for _, h := range status(t, lab).Hosts {
		if h.Name == name {
			return h
		}
	}
	t.Fatalf("no host %s", name)
	return control.Host{}
}

func processOf(t *testing.T, lab *Lab, target string) control.Process {
	t.Helper()
	host, name, _ := strings.Cut(target, "/")
	for _, p := range hostOf(t, lab, host).Processes {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no process %s", target)
	return control.Process{}
}

// ask connects to a loopback endpoint and returns the greeting of the gateway behind it.
func ask(endpoint string) (string, error) {
	conn, err := net.DialTimeout("tcp", endpoint, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// in runs a command on a host and returns its output.
func in(t *testing.T, lab *Lab, host string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := lab.StartIn(t.Context(), host, cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, &out)
	}
	return strings.TrimSpace(out.String())
}

// alive says whether a process exists and is not just waiting to be reaped.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// network prints what the machine's own network consists of.
func network(t *testing.T) string {
	t.Helper()
	var all []byte
	for _, args := range [][]string{{"-o", "link", "show"}, {"-4", "-o", "addr", "show"}, {"route", "show", "table", "all"}, {"rule"}} {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip: %v: %s", err, out)
		}
		all = append(all, out...)
	}
	// Addresses and routes that others gave to this machine for a while have less of it left each time
	// one looks.
	return lifetimes.ReplaceAllString(string(all), "")
}

var lifetimes = regexp.MustCompile(`(valid_lft|preferred_lft|expires) \d+sec`)

// remains lists what is left of a lab on the machine: processes, namespaces, mounts, cgroups, eBPF
// programs, sockets.
func remains(t *testing.T, name, stateDir string) []string {
	t.Helper()
	var left []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "xb-"+name) || strings.Contains(line, stateDir) {
			left = append(left, "mount "+line)
		}
	}
	names, _ := filepath.Glob("/run/netns/xb-" + name + "-*")
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/xb-" + name)
	alone, _ := filepath.Glob("/sys/fs/cgroup/xb-" + name)
	left = append(append(append(left, names...), groups...), alone...)
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		if command, err := os.ReadFile(file); err == nil && strings.Contains(string(command), stateDir) {
			left = append(left, "process "+strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); err != nil {
			break
		}
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		if info, err := program.Info(); err == nil && info.Name == programName(name) {
			left = append(left, "program "+info.Name)
		}
		program.Close()
	}
	if _, err := registered(name); err == nil {
		left = append(left, "registration")
	}
	for _, file := range []string{"lock", "control.sock"} {
		if _, err := os.Stat(filepath.Join(stateDir, file)); err == nil {
			left = append(left, file)
		}
	}
	return left
}

// wantGone fails the test unless nothing of the lab remains. The kernel ends namespaces and what
// hangs on cgroups in its own time, one after the other with those of everybody else on the
// machine.
func wantGone(t *testing.T, name, stateDir string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for left := remains(t, name, stateDir); len(left) > 0; left = remains(t, name, stateDir) {
		if time.Now().After(deadline) {
			t.Fatalf("left of lab %s:\n%s", name, strings.Join(left, "\n"))
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestLab(t *testing.T) {
	bin, state, name := binDir(t), scratch(t), labName("a")
	before := network(t)
	config := filepath.Join(state, "home", "config")
	lab := up(t, Options{Name: name, Masters: 2, Nodes: 1, BinDir: bin, StateDir: state, ContextFile: config, Ephemeral: true})
	if during := network(t); during != before {
		t.Errorf("the machine's network changed:\n%s\nbefore:\n%s", during, before)
	}

	t.Run("all run", func(t *testing.T) {
		eventually(t, "every process runs", func() bool {
			for _, h := range status(t, lab).Hosts {
				for _, p := range h.Processes {
					if p.State != control.Alive || p.Restarts > 0 {
						return false
					}
				}
			}
			return true
		})
		if got := processOf(t, lab, "master-2/etcd").Listening; len(got) != 1 || !strings.HasSuffix(got[0], ".12:2379") {
			t.Errorf("etcd listens on %v", got)
		}
	})

	t.Run("gateways are reached by loopback", func(t *testing.T) {
		saved, err := cliconfig.Load(config)
		if err != nil {
			t.Fatal(err)
		}
		current, err := saved.Current()
		if err != nil {
			t.Fatal(err)
		}
		if current.Name != "lab-"+name || len(current.Endpoints) != 2 {
			t.Fatalf("context %+v", current)
		}
		for i, endpoint := range current.Endpoints {
			want := fmt.Sprintf("master-%d", i+1)
			eventually(t, want+" greets at "+endpoint, func() bool {
				got, err := ask(endpoint)
				return err == nil && got == want
			})
		}
	})

	t.Run("process is killed and comes back", func(t *testing.T) {
		old := processOf(t, lab, "master-2/scheduler")
		if err := lab.Kill(t.Context(), "master-2/scheduler", KillOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "scheduler was restarted", func() bool {
			p := processOf(t, lab, "master-2/scheduler")
			return p.State == control.Alive && p.PID != old.PID && p.Restarts == 1 && p.LastExit == "signal: killed"
		})
	})

	t.Run("process is held", func(t *testing.T) {
		const target = "node-1/agent"
		if err := lab.Kill(t.Context(), target, KillOptions{Hold: true}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "agent is held", func() bool {
			p := processOf(t, lab, target)
			return p.State == control.Held && p.PID == 0
		})
		if err := lab.Start(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		eventually(t, "agent runs", func() bool { return processOf(t, lab, target).State == control.Alive })
	})

	t.Run("host is cut off and healed", func(t *testing.T) {
		endpoint := status(t, lab).Endpoints[1]
		if err := lab.Cut(t.Context(), "master-2"); err != nil {
			t.Fatal(err)
		}
		if got := hostOf(t, lab, "master-2").State; got != control.Cut {
			t.Errorf("state = %s", got)
		}
		if got, err := ask(endpoint); err == nil {
			t.Errorf("a host that is cut off greets: %s", got)
		}
		if err := lab.Heal(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the healed host greets", func() bool { _, err := ask(endpoint); return err == nil })
	})

	t.Run("containers outlive containerd, not their machine", func(t *testing.T) {
		root := filepath.Join(scratch(t), "root")
		if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "/bin/busybox", filepath.Join(root, "bin/busybox")).CombinedOutput(); err != nil {
			t.Skipf("busybox-static is not installed: %s", out)
		}
		group := "/xb-" + name + "/node-1/pods/c1"
		in(t, lab, "node-1", "ctr", "run", "-d", "--net-host", "--cgroup", group, "--rootfs", root, "c1", "/bin/busybox", "sleep", "300")
		hier, err := cgroup.Find()
		if err != nil {
			t.Fatal(err)
		}
		container, err := hier.Pids(group)
		if err != nil || len(container) != 1 {
			t.Fatalf("container's processes = %v, %v", container, err)
		}

		old := processOf(t, lab, "node-1/containerd").PID
		if err := lab.Kill(t.Context(), "node-1/containerd", KillOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "containerd was restarted", func() bool {
			p := processOf(t, lab, "node-1/containerd")
			return p.State == control.Alive && p.PID != old
		})
		if !alive(container[0]) {
			t.Error("the container died with containerd")
		}
		eventually(t, "containerd knows the container", func() bool {
			cmd := exec.Command("ctr", "task", "ls")
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := lab.StartIn(t.Context(), "node-1", cmd); err != nil {
				t.Fatal(err)
			}
			return cmd.Wait() == nil && strings.Contains(out.String(), "RUNNING")
		})

		if err := lab.Kill(t.Context(), "node-1", KillOptions{PowerOff: true}); err != nil {
			t.Fatal(err)
		}
		if alive(container[0]) {
			t.Error("the container outlived its machine")
		}
		if h := hostOf(t, lab, "node-1"); h.State != control.Down || h.Processes[0].State != control.Off {
			t.Errorf("host is %s, its containerd %s", h.State, h.Processes[0].State)
		}
		if err := lab.Kill(t.Context(), "node-1", KillOptions{}); err == nil {
			t.Error("a dead host was killed")
		}
		if err := lab.Start(t.Context(), "node-1/agent"); err == nil {
			t.Error("a process was started on a dead host")
		}
		if err := lab.Start(t.Context(), "node-1"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the agent runs again", func() bool { return processOf(t, lab, "node-1/agent").State == control.Alive })
		if got := in(t, lab, "node-1", "cat", "/proc/mounts"); strings.Contains(got, "/run/containerd/io.containerd.runtime") {
			t.Errorf("mounts of containers outlived their machine:\n%s", got)
		}
		if got := in(t, lab, "node-1", "ctr", "task", "ls", "-q"); got != "" {
			t.Errorf("tasks after a reboot: %s", got)
		}
	})

	t.Run("unknown targets", func(t *testing.T) {
		for target, want := range map[string]string{
			"master-9":     "want one of master-1, master-2, node-1",
			"node-1/etcd":  "want one of containerd, agent",
			"node-1/a/b":   "invalid target",
			"master-1/foo": `no process "foo"`,
		} {
			if err := lab.Kill(t.Context(), target, KillOptions{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Kill(%q) = %v, want %q in it", target, err, want)
			}
		}
		if err := lab.Cut(t.Context(), "node-1/agent"); err == nil {
			t.Error("a process was cut off")
		}
	})

	t.Run("logs", func(t *testing.T) {
		path, err := lab.LogFile("master-1/gateway")
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := printLog(t.Context(), &out, path, 1, false); err != nil || out.String() != "serving gateway\n" {
			t.Errorf("log = %q, %v", &out, err)
		}
		if _, err := lab.LogFile("master-1/absent"); err == nil {
			t.Error("there is a log of an absent process")
		}
	})

	t.Run("a second up is refused", func(t *testing.T) {
		_, err := Up(t.Context(), Options{Name: name, Masters: 1, BinDir: bin, StateDir: state})
		if err == nil || !strings.Contains(err.Error(), "is already running") {
			t.Errorf("error = %v", err)
		}
	})

	if err := Down(t.Context(), DownOptions{Name: name}); err != nil {
		t.Fatal(err)
	}
	wantGone(t, name, state)
	if _, err := os.Stat(config); err == nil {
		t.Error("the context file outlived the lab")
	}
	if after := network(t); after != before {
		t.Errorf("the machine's network changed:\n%s\nbefore:\n%s", after, before)
	}
}

func TestDownAfterSupervisorWasKilled(t *testing.T) {
	bin, state, name := binDir(t), scratch(t), labName("k")
	lab := up(t, Options{Name: name, Masters: 1, Nodes: 1, BinDir: bin, StateDir: state, Ephemeral: true})
	eventually(t, "the agent runs", func() bool { return processOf(t, lab, "node-1/agent").State == control.Alive })
	if err := unix.Kill(status(t, lab).PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the supervisor is gone", func() bool {
		_, err := lab.Status(t.Context())
		return errors.Is(err, control.ErrNotRunning)
	})
	if _, err := lab.Status(t.Context()); !strings.Contains(err.Error(), "xebec lab down --name "+name) {
		t.Errorf("error of status = %v", err)
	}
	_, err := Up(t.Context(), Options{Name: name, Masters: 1, BinDir: bin, StateDir: state})
	if err == nil || !strings.Contains(err.Error(), "supervisor is gone") {
		t.Errorf("error of up = %v", err)
	}
	if err := Down(t.Context(), DownOptions{Name: name}); err != nil {
		t.Fatal(err)
	}
	wantGone(t, name, state)
	if err := Down(t.Context(), DownOptions{Name: name, StateDir: state, Purge: true}); err != nil {
		t.Errorf("second down: %v", err)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("the state directory outlived its purge")
	}
}

func TestTwoLabs(t *testing.T) {
	bin, first, second := binDir(t), labName("x"), labName("y")
	stateX, stateY := scratch(t), scratch(t)
	x := up(t, Options{Name: first, Masters: 1, BinDir: bin, StateDir: stateX})
	y := up(t, Options{Name: second, Masters: 1, BinDir: bin, StateDir: stateY})
	if x.Spec.Network() == y.Spec.Network() {
		t.Errorf("both labs have the network %s", x.Spec.Network())
	}
	if err := Down(t.Context(), DownOptions{Name: first}); err != nil {
		t.Fatal(err)
	}
	wantGone(t, first, stateX)
	eventually(t, "the other lab goes on", func() bool { _, err := ask(status(t, y).Endpoints[0]); return err == nil })
	if processOf(t, y, "master-1/gateway").Restarts > 0 {
		t.Error("the other lab's gateway was restarted")
	}

	// A lab goes on with what it had, at the same addresses; one of another shape must not.
	endpoints := status(t, y).Endpoints
	if err := Down(t.Context(), DownOptions{Name: second}); err != nil {
		t.Fatal(err)
	}
	_, err := Up(t.Context(), Options{Name: second, Masters: 2, BinDir: bin, StateDir: stateY})
	if err == nil || !strings.Contains(err.Error(), "contains the data") {
		t.Errorf("error of another shape = %v", err)
	}
	again := up(t, Options{Name: second, Masters: 1, BinDir: bin, StateDir: stateY})
	if got := status(t, again).Endpoints; got[0] != endpoints[0] {
		// Unless another program has taken the port meanwhile.
		if l, err := net.Listen("tcp4", endpoints[0]); err == nil {
			l.Close()
			t.Errorf("endpoints = %v, were %v", got, endpoints)
		}
	}
}

func TestUpErrors(t *testing.T) {
	bin := binDir(t)
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"no programs": {Options{Masters: 1, BinDir: t.TempDir()}, "build it by make build"},
		"overlap":     {Options{Masters: 1, BinDir: bin, ServiceCIDR: DefaultClusterCIDR}, "overlaps cluster CIDR"},
		"no masters":  {Options{BinDir: bin}, "masters: 0"},
		"long path":   {Options{Masters: 1, BinDir: bin, StateDir: "/dev/shm/" + strings.Repeat("x", 100)}, "too long for sockets"},
	} {
		t.Run(name, func(t *testing.T) {
			test.options.Name = labName("e")
			_, err := Up(t.Context(), test.options)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q in it", err, test.want)
			}
			if _, err := registered(test.options.Name); err == nil {
				t.Error("a lab that failed is registered")
			}
		})
	}
	if _, err := Open("nosuchlab"); err == nil || !strings.Contains(err.Error(), "xebec lab up") {
		t.Errorf("Open of no lab = %v", err)
	}
	t.Run("no containerd", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := Up(t.Context(), Options{Name: labName("e"), Masters: 1, Nodes: 1, BinDir: bin})
		if err == nil || !strings.Contains(err.Error(), "apt-get install containerd runc") {
			t.Errorf("error = %v", err)
		}
	})
}

// TestSlowSupervisor: the failure of a supervisor is reported immediately, with its output; a slow
// one is waited for.
func TestSlowSupervisor(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"broken": {"echo broken; exit 1", "supervisor of the lab terminated: broken"},
		"slow":   {`sleep 3; exec "$(dirname "$0")/slow/xebec" "$@"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bin, state := binDir(t), scratch(t)
			// What stands in for the program goes by its name.
			program, slow := filepath.Join(bin, "xebec"), filepath.Join(bin, "slow", "xebec")
			err := errors.Join(os.Mkdir(filepath.Dir(slow), 0o755), os.Rename(program, slow), os.WriteFile(program, []byte("#!/bin/sh\n"+test.script+"\n"), 0o755))
			if err != nil {
				t.Fatal(err)
			}
			options := Options{Name: labName("s"), Masters: 1, BinDir: bin, StateDir: state, NoWait: true, Ephemeral: true}
			_, err = Up(t.Context(), options)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if err := Down(t.Context(), DownOptions{Name: options.Name}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPurgeSparesOtherDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := purge(dir); err == nil {
		t.Error("a directory that is no lab's was purged")
	}
	if _, err := os.Stat(filepath.Join(dir, "thesis.txt")); err != nil {
		t.Error(err)
	}
}

func TestLastLines(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	for _, test := range []struct {
		text  string
		lines int
		want  string
	}{
		{"", 3, ""},
		{"a\nb\nc\n", 2, "b\nc\n"},
		{"a\nb\nc", 2, "b\nc"},
		{"a\nb\n", 9, "a\nb\n"},
		{"a\nb\n", 0, ""},
		{"a\n" + long + "\nc\n", 2, long + "\nc\n"},
		{"\n\n\n", 1, "\n"},
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := printLog(t.Context(), &out, path, test.lines, false); err != nil || out.String() != test.want {
			t.Errorf("last %d lines of %.20q = %.20q, %v", test.lines, test.text, &out, err)
		}
	}
}
