// Guest is the first process on a kernel that is tried: it loads modules, runs tests and turns the
// machine off. What the tests say goes to the second serial port; the kernel has the first.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/tests/kernels"
)

func main() {
	// Whatever happened, the machine restarts, which it is made to take for its end.
	defer unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	if err := mount(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err) // on the console
		return
	}
	report, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		return
	}
	if err := run(report); err != nil {
		fmt.Fprintln(report, "guest:", err)
	} else {
		fmt.Fprintln(report, kernels.Done)
	}
	// The last bytes have to be out before the machine is.
	if err := unix.IoctlSetInt(int(report.Fd()), unix.TCSBRK, 1); err != nil {
		fmt.Fprintln(os.Stderr, "guest: waiting for the report to be out:", err)
	}
}

// mount mounts what programs expect of a Linux system.
func mount() error {
	for _, m := range []struct{ dir, fstype string }{
		{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}, {"/dev/shm", "tmpfs"}, {"/tmp", "tmpfs"},
		{"/sys/fs/cgroup", "cgroup2"}, {"/sys/fs/bpf", "bpf"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.dir, err)
		}
	}
	return nil
}

func run(report io.Writer) error {
	text, err := os.ReadFile(kernels.PlanPath)
	if err != nil {
		return err
	}
	var plan kernels.Plan
	if err := json.Unmarshal(text, &plan); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	for _, path := range plan.Modules {
		if err := loadModule(path); err != nil {
			return err
		}
	}
	// Before Linux 5.11 maps count as locked memory.
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
		return fmt.Errorf("raising the limit of locked memory: %w", err)
	}
	if err := raiseLoopback(); err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	for _, test := range plan.Tests {
		cmd := exec.Command(test.Path, test.Args...)
		cmd.Dir = "/tmp"
		// With CI, a test fails for want of something that it would skip for.
		cmd.Env = []string{"PATH=/bin", "HOME=/tmp", "CI=true"}
		cmd.Stdout, cmd.Stderr = report, report
		verdict := kernels.Passed
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(report, "%s: %v\n", test.Name, err)
			verdict = kernels.Failed
		}
		fmt.Fprintln(report, test.Name+verdict)
	}
	return nil
}

func raiseLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil {
		return fmt.Errorf("loading %s: %w", path, err)
	}
	return nil
}
