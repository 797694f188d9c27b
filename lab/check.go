package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/lab/cgroup"
	"github.com/xebec-project/xebec/lab/control"
	"github.com/xebec-project/xebec/lab/topology"
)

// errNotRoot is the error of a command that was not run as root.
var errNotRoot = errors.New("a lab requires root: run the command with sudo")

// Check reports everything that keeps this machine from running the lab, each with a solution.
func Check(spec topology.Spec) error {
	if runtime.GOOS != "linux" {
		return errors.New("a lab requires Linux: use virtual machines elsewhere, see vagrant/")
	}
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if missing := missingCapabilities(); len(missing) > 0 {
		fail("root lacks %s: run on the machine itself, or in a container with --privileged", strings.Join(missing, ", "))
	}
	if spec.Nodes > 0 {
		for _, program := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
			if _, err := exec.LookPath(program); err != nil {
				fail("%s is not installed: apt-get install containerd runc", program)
			}
		}
	}
	for _, program := range []string{"xebec", "xebecd", "xebec-agent"} {
		if err := unix.Access(filepath.Join(spec.BinDir, program), unix.X_OK); err != nil {
			fail("program %s not found in %s: build it by make build, or set --bin", program, spec.BinDir)
		}
	}
	if _, err := cgroup.Find(); err != nil {
		errs = append(errs, err)
	}
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		errs = append(errs, err)
	}
	known := strings.Fields(string(filesystems))
	for name, hint := range map[string]string{"bpf": "CONFIG_BPF_SYSCALL is required", "overlay": "modprobe overlay"} {
		if !slices.Contains(known, name) && !loadable(name) {
			fail("file system %q is not available in the kernel: %s", name, hint)
		}
	}
	if len(spec.Socket()) > control.MaxSocketPath {
		fail("path of state directory %s is too long for sockets: set a shorter --state-dir", spec.StateDir)
	}
	if !spec.Ephemeral && onOverlay(spec.StateDir) {
		fail("state directory %s is on an overlay, which cannot hold containers: set another --state-dir, or --ephemeral", spec.StateDir)
	}
	return errors.Join(errs...)
}

// loadable tries to load a kernel module.
func loadable(module string) bool { return exec.Command("modprobe", "-q", module).Run() == nil }

// missingCapabilities returns what root may not do here of what a lab needs.
func missingCapabilities() []string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	var effective uint64
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			effective, _ = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	var missing []string
	for _, c := range []struct {
		name string
		bit  int
	}{{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		if effective&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	return missing
}

// onOverlay says whether the directory, or its nearest parent that exists, lies on an overlay.
func onOverlay(dir string) bool {
	var stat unix.Statfs_t
	for ; ; dir = filepath.Dir(dir) {
		if err := unix.Statfs(dir, &stat); err == nil {
			return stat.Type == unix.OVERLAYFS_SUPER_MAGIC
		} else if dir == "/" {
			return false
		}
	}
}
