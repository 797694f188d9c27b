package vm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// cacheDir holds the box between runs.
	cacheDir = "/var/cache/xebec"
	// suiteVariable names the Debian release that the machines run. The usual one's kernel has no tcx,
	// so that the datapath takes to clsact.
	suiteVariable = "XEBEC_VM_SUITE"
	usualSuite    = "bookworm"
	// worldDir names the directory of the run to the process in the namespaces, and tells it that it
	// is there.
	worldDir = "XEBEC_VM_WORLD"
)

// box returns a Vagrant box, which it builds when it is not in the cache.
func box(t *testing.T) string {
	t.Helper()
	script, err := filepath.Abs("../../vagrant/box/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	recipe, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	sum, suite := sha256.Sum256(recipe), cmp.Or(os.Getenv(suiteVariable), usualSuite)
	path := filepath.Join(cacheDir, fmt.Sprintf("vm-%s-%x.box", suite, sum[:6]))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	old, err := filepath.Glob(filepath.Join(cacheDir, "vm-"+suite+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range old {
		if err := os.Remove(o); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), script, path, suite)
	// The tree is some ten thousand files, which a slow disk would feel.
	build.Env = append(os.Environ(), "TMPDIR=/dev/shm")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		t.Fatalf("build the box: %v", err)
	}
	return path
}

// enter runs the calling test once more, in namespaces of its own, and takes over its verdict.
func enter(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "xebec-vm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Link(box(t), filepath.Join(dir, "debian.box")); err != nil {
		// On another file system.
		if out, err := exec.CommandContext(t.Context(), "cp", box(t), filepath.Join(dir, "debian.box")).CombinedOutput(); err != nil {
			t.Fatalf("copy the box: %v\n%s", err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A shell is the first process: QEMU and libvirt's daemons leave their parents, and it reaps them.
	args := []string{"--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		"bash", "-c", `"$@" & wait $!`, "world", self, "-test.run", "^" + t.Name() + "$", "-test.v"}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", time.Until(deadline).String())
	}
	inside := exec.CommandContext(t.Context(), "unshare", args...)
	inside.Env = append(os.Environ(), worldDir+"="+dir, "HOME="+dir, "VAGRANT_HOME="+filepath.Join(dir, ".vagrant.d"),
		"VAGRANT_CHECKPOINT_DISABLE=1", "VAGRANT_DEFAULT_PROVIDER=libvirt", "ANSIBLE_NOCOLOR=1", "VAGRANT_NO_COLOR=1")
	inside.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	if err := inside.Run(); err != nil {
		t.Fatalf("inside the namespaces: %v", err)
	}
}

// emulate is added to the Vagrantfile by Vagrant itself, from its home directory: how this test
// wants any machine to be.
const emulate = `Vagrant.configure("2") do |config|
  config.vm.provider "libvirt" do |libvirt|
    libvirt.driver = "qemu"
    libvirt.cpu_mode = "custom"
    libvirt.cpu_model = "qemu64"
    libvirt.graphics_type = "none"
  end
end
`

const qemuConf = `user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
`

// startLibvirt starts libvirt's daemons, with all their files in dir, in the namespaces that the
// test is in.
func startLibvirt(t *testing.T, dir string) {
	t.Helper()
	run(t, "", "ip", "link", "set", "lo", "up")
	for _, d := range []string{"/run", "/var/lib/libvirt", "/var/log/libvirt", "/etc/libvirt/qemu", "/etc/libvirt/storage", "/var/cache/libvirt"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", d, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatalf("mount %s: %v", d, err)
		}
	}
	// What looks like virtualisation and starts no guest would stall libvirt.
	for path, content := range map[string]string{"/etc/libvirt/qemu.conf": qemuConf, "/dev/kvm": ""} {
		file := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(file, []byte(content), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
			t.Fatalf("cover %s: %v", path, err)
		}
	}
	for _, daemon := range []string{"/usr/sbin/virtlogd", "/usr/sbin/libvirtd"} {
		run(t, "", daemon, "-d")
	}
	await(t, time.Minute, "libvirt", func() error {
		conn, err := net.Dial("unix", "/run/libvirt/libvirt-sock")
		if err == nil {
			conn.Close()
		}
		return err
	})
	probe(t)
	pool := filepath.Join(dir, "pool")
	for _, args := range [][]string{
		{"pool-define-as", "default", "dir", "--target", pool}, {"pool-build", "default"}, {"pool-start", "default"},
	} {
		run(t, "", "virsh", append([]string{"-c", "qemu:///system", "-q"}, args...)...)
	}
}

// probe has libvirt ask QEMU what it can do, which it would otherwise do when the first machine
// starts. On a busy machine QEMU 7.2 may accept the connection for that in one thread and wait for
// it for ever in another: it is ended then, and libvirt asks anew.
func probe(t *testing.T) {
	t.Helper()
	await(t, 3*time.Minute, "an answer of QEMU", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "virsh", "-c", "qemu:///system", "domcapabilities", "--virttype", "qemu").CombinedOutput()
		if err == nil {
			return nil
		}
		stuck, globErr := filepath.Glob("/var/lib/libvirt/qemu/qmp-*/qmp.pid")
		for _, file := range stuck {
			if text, err := os.ReadFile(file); err == nil {
				if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 0 {
					globErr = errors.Join(globErr, unix.Kill(pid, unix.SIGKILL))
				}
			}
		}
		return fmt.Errorf("domcapabilities: %w\n%s", errors.Join(err, globErr), out)
	})
}

// run runs a program in a directory and returns what it printed; the test ends when it fails.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// await returns when check finds nothing amiss.
func await(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s not in %v: %v", what, limit, err)
		}
	}
}
