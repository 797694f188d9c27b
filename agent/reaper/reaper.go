// Package reaper keeps the process namespace of a pod whose containers see each other's processes.
//
// Such a namespace lives as long as its first process. That one is the agent's own program under
// another argument, made small and powerless: no capability, an unprivileged user, an empty root.
// It collects the orphans of the pod and does nothing else. It outlives the agent, which finds it
// again by the namespace's pin and the cgroup that it was put in, so that nothing needs to be
// written down: between the two the end of the agent ends the process, which has no order to
// stay yet.
package reaper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/osthread"
)

// Subcommand is the argument that makes a program that calls Run the first process of a pod.
const Subcommand = "reaper"

const (
	// unprivileged is the user and group that the process runs as.
	unprivileged = 65535
	// startTimeout is how long the process may take to give up its rights, endTimeout how long it may
	// take to end with all that its namespace holds.
	startTimeout, endTimeout = 10 * time.Second, 10 * time.Second
)

// Asked reports whether the process was started to be a pod's first.
func Asked() bool { return len(os.Args) == 2 && os.Args[1] == Subcommand }

// Run is the main function of a reaper: it drops all privileges, reports that on descriptor 3, and
// stays once it reads the order to stay there. It returns only on failure, or without that order.
func Run() int {
	// The kernel itself collects the orphans of a first process that ignores their ends. From inside
	// the namespace it can't be killed, as it handles no signal.
	signal.Ignore()
	runtime.GOMAXPROCS(1)
	debug.SetMemoryLimit(4 << 20)
	link := os.NewFile(3, "agent")
	if err := renounce(); err != nil {
		fmt.Fprintln(link, err)
		return 1
	}
	var word [1]byte
	if _, err := link.Write([]byte("\n")); err != nil {
		return 1
	}
	if _, err := link.Read(word[:]); err != nil {
		return 1
	}
	link.Close()
	for {
		// Signals end the wait, and nothing else does.
		_, _ = unix.Poll(nil, -1)
	}
}

// renounce drops everything that a container of the pod could gain from the process: its root is
// empty, its user unprivileged.
func renounce() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	// Any directory does that every machine has: the mount is seen by this process only.
	const root = "/proc"
	if err := unix.Mount("none", root, "tmpfs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOSUID, "mode=0555"); err != nil {
		return fmt.Errorf("mounting an empty root: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("changing to the empty root: %w", err)
	}
	// The old root comes to lie upon the new one, and is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("changing to the empty root: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	// The last user id to go takes the capabilities with it.
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(unprivileged), syscall.Setuid(unprivileged)); err != nil {
		return fmt.Errorf("changing to an unprivileged user: %w", err)
	}
	return nil
}

// Config says which namespace to keep.
type Config struct {
	// Pin is the file that the namespace is pinned at; its directory exists.
	Pin string
	// Program is started as the reaper; default the running program itself.
	Program string
	// Join are pins of the namespaces that the pod's containers share beside this one; empty ones are
	// left out.
	Join []string
	// Place puts a process where Placed finds it again, whatever became of the agent: into a cgroup of
	// its own.
	Place  func(pid int) error
	Placed func() ([]int, error)
}

// Ensure makes the namespace, or finds the one that is pinned already and alive, and reports
// whether it was made. A namespace whose first process was lost is replaced; the kernel has then
// ended all that was in it.
func Ensure(cfg Config) (made bool, err error) {
	pids, err := cfg.Placed()
	if err != nil {
		return false, err
	}
	for _, pid := range pids {
		if keeps(pid, cfg.Pin) {
			return false, nil
		}
	}
	if err := End(cfg); err != nil {
		return false, err
	}
	if err := osthread.Do(func() error { return start(cfg) }); err != nil {
		return false, fmt.Errorf("starting the pod's first process: %w", err)
	}
	return true, nil
}

// keeps reports whether the process is the first of the pinned namespace.
func keeps(pid int, pin string) bool {
	now, err := os.Stat(namespace(pid))
	if err != nil {
		return false
	}
	pinned, err := os.Stat(pin)
	return err == nil && os.SameFile(now, pinned)
}

func namespace(pid int) string { return filepath.Join("/proc", strconv.Itoa(pid), "ns", "pid") }

// start runs on a thread of its own, which it takes into the pod's namespaces for its child to be
// there.
func start(cfg Config) error {
	if cfg.Program == "" {
		var err error
		if cfg.Program, err = os.Executable(); err != nil {
			return err
		}
	}
	for _, path := range cfg.Join {
		if path == "" {
			continue
		}
		ns, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.Setns(int(ns.Fd()), 0)
		ns.Close()
		if err != nil {
			return fmt.Errorf("entering %s: %w", path, err)
		}
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	own, its := os.NewFile(uintptr(ends[0]), "reaper"), os.NewFile(uintptr(ends[1]), "agent")
	defer own.Close()
	defer its.Close()
	cmd := &exec.Cmd{
		Path: cfg.Program, Args: []string{"xebec-agent", Subcommand}, Dir: "/", Env: []string{"GOTRACEBACK=none"}, ExtraFiles: []*os.File{its},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS},
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	its.Close()
	// Its end is for the agent to collect, as long as there is the agent that started it.
	go func() { _ = cmd.Wait() }()
	if err := settle(cfg, cmd.Process.Pid, own); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	return nil
}

// settle makes the process findable and then tells it to stay.
func settle(cfg Config, pid int, link *os.File) error {
	if err := link.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	said := make([]byte, 256)
	n, err := link.Read(said)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n != 1 {
		return fmt.Errorf("it exited during its start: %s", said[:n])
	}
	if err := cfg.Place(pid); err != nil {
		return err
	}
	f, err := os.OpenFile(cfg.Pin, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(namespace(pid), cfg.Pin, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pinning the process namespace: %w", err)
	}
	_, err = link.Write([]byte("\n"))
	return err
}

// End ends the namespace's first process, and by that all that the namespace holds, and unpins it.
// One that is not there is no error.
func End(cfg Config) error {
	pids, err := cfg.Placed()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := kill(pid, cfg); err != nil {
			return err
		}
	}
	for {
		err := unix.Unmount(cfg.Pin, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", cfg.Pin, err)
		}
		return nil
	}
}

// kill ends a process and returns when it has ended.
func kill(pid int, cfg Config) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stopping the pod's first process: %w", err)
	}
	defer unix.Close(fd)
	// It still is the process that was found there, now that the descriptor stands for it.
	now, err := cfg.Placed()
	if err != nil {
		return err
	}
	for _, p := range now {
		if p != pid {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stopping the pod's first process: %w", err)
		}
		for end := time.Now().Add(endTimeout); ; {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds()))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil && n == 0 {
				err = errors.New("process does not exit")
			}
			if err != nil {
				return fmt.Errorf("stopping the pod's first process: %w", err)
			}
			break
		}
	}
	return nil
}
