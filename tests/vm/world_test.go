package vm

import (
	"cmp"
	"context"
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

	"github.com/xebec-project/xebec/tests/guests"
)

const (
	// suiteVariable names the Debian release that the machines run. The usual one's kernel has no tcx,
	// so that the datapath takes to clsact.
	suiteVariable = "XEBEC_VM_SUITE"
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
	suite := cmp.Or(os.Getenv(suiteVariable), guests.Suite)
	return guests.Image{Kind: "vm", Suite: suite, Recipe: string(recipe), Extension: ".box"}.Get(t, func(path string) {
		build := exec.CommandContext(t.Context(), script, path, suite)
		// The tree has some ten thousand files, which are slow to write on a disk.
		build.Env = append(os.Environ(), "TMPDIR=/dev/shm")
		build.Stdout, build.Stderr = os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			t.Fatalf("build the box: %v", err)
		}
	})
}

// enter runs the calling test once more, in namespaces of its own, and takes over its verdict.
func enter(t *testing.T) {
	t.Helper()
	dir := guests.MemoryDir(t, "xebec-vm-")
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
	guests.Run(t, "", "ip", "link", "set", "lo", "up")
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
		guests.Run(t, "", daemon, "-d")
	}
	guests.Await(t, time.Minute, "libvirt", func() error {
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
		guests.Run(t, "", "virsh", append([]string{"-c", "qemu:///system", "-q"}, args...)...)
	}
}

// probe has libvirt ask QEMU what it can do, which it would otherwise do when the first machine
// starts. On a busy machine QEMU 7.2 may accept the connection for that in one thread and wait for
// it for ever in another: it is ended then, and libvirt asks again.
func probe(t *testing.T) {
	t.Helper()
	guests.Await(t, 3*time.Minute, "an answer of QEMU", func() error {
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
