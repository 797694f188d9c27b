// Package sandbox makes the surroundings that a pod's containers share: network, IPC and UTS
// namespaces, and /dev/shm.
//
// No process holds them (there is no pause container): each namespace is pinned by a bind mount in
// the pod's directory and lives until that mount is removed, whatever becomes of the agent.
// containerd must see these mounts, so that the agent and containerd have to run in the same mount
// namespace, or in one that mounts propagate to.
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/failpoint"
	"github.com/xebec-project/xebec/internal/osthread"
)

// shmSize is the size of a pod's /dev/shm, as a mount option.
const shmSize = "size=67108864"

// Config says what sandbox to make.
type Config struct {
	// Dir is the directory that pins it; made when absent.
	Dir string
	// Hostname is what the pod's containers see as theirs, at most 64 bytes.
	Hostname string
	// HostNetwork leaves the pod in the node's network and UTS namespaces.
	HostNetwork bool
	// HostIPC leaves the pod in the node's IPC namespace.
	HostIPC bool
}

// Sandbox holds the paths of what a pod's containers share. An empty path stands for the node's
// own.
type Sandbox struct {
	Net, IPC, UTS string
	// Shm is the directory to mount at /dev/shm.
	Shm string
}

// kind is one sort of namespace.
type kind struct {
	name string
	flag int
}

// Create makes the sandbox, or finishes and returns the one that dir pins already. Created reports
// whether a network namespace was made, which then has nothing but its loopback device.
func Create(cfg Config) (s Sandbox, created bool, err error) {
	if err := os.MkdirAll(cfg.Dir, 0o711); err != nil {
		return s, false, fmt.Errorf("creating sandbox: %w", err)
	}
	var kinds []kind
	if !cfg.HostNetwork {
		s.Net, s.UTS = filepath.Join(cfg.Dir, "net"), filepath.Join(cfg.Dir, "uts")
		kinds = append(kinds, kind{"net", unix.CLONE_NEWNET}, kind{"uts", unix.CLONE_NEWUTS})
	}
	s.Shm = "/dev/shm"
	if !cfg.HostIPC {
		s.IPC, s.Shm = filepath.Join(cfg.Dir, "ipc"), filepath.Join(cfg.Dir, "shm")
		kinds = append(kinds, kind{"ipc", unix.CLONE_NEWIPC})
		if err := mountShm(s.Shm); err != nil {
			return s, false, err
		}
	}
	var missing []kind
	for _, k := range kinds {
		pinned, err := isPinned(filepath.Join(cfg.Dir, k.name))
		if err != nil {
			return s, false, err
		}
		if !pinned {
			missing = append(missing, k)
			created = created || k.name == "net"
		}
	}
	if len(missing) == 0 {
		return s, false, nil
	}
	if err := osthread.Do(func() error { return pin(cfg, missing) }); err != nil {
		return s, false, fmt.Errorf("creating sandbox %s: %w", cfg.Dir, err)
	}
	return s, created, nil
}

// Exists reports whether dir pins any namespace. After a restart of the machine it does not.
func Exists(dir string) (bool, error) {
	for _, name := range []string{"net", "uts", "ipc"} {
		if pinned, err := isPinned(filepath.Join(dir, name)); pinned || err != nil {
			return pinned, err
		}
	}
	return false, nil
}

func pin(cfg Config, kinds []kind) error {
	flags := 0
	for _, k := range kinds {
		flags |= k.flag
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for _, k := range kinds {
		switch k.name {
		case "uts":
			if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
				return fmt.Errorf("setting the hostname: %w", err)
			}
		case "net":
			if err := setUpNetwork(); err != nil {
				return err
			}
		}
	}
	for _, k := range kinds {
		target := filepath.Join(cfg.Dir, k.name)
		f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		f.Close()
		source := filepath.Join("/proc/self/task", strconv.Itoa(unix.Gettid()), "ns", k.name)
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pinning the %s namespace: %w", k.name, err)
		}
		failpoint.Hit("namespace-pinned")
	}
	return nil
}

// setUpNetwork brings up the loopback device of the calling thread's network namespace and lets any
// user bind ports below 1024 there, as Docker does: the ports are the pod's own.
func setUpNetwork() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	// A read-only /proc/sys is no reason to refuse the pod.
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	return nil
}

// Remove unpins everything in dir and removes it. The namespaces end when their last process has. A
// missing dir is no error.
func Remove(dir string) error {
	var errs []error
	for _, name := range []string{"net", "ipc", "uts", "pid", "shm"} {
		p := filepath.Join(dir, name)
		// A mount may have been stacked on another by two agents that raced; all of them go.
		for {
			err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if err == nil {
				failpoint.Hit("namespace-unpinned")
				continue
			}
			if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
			}
			break
		}
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func mountShm(dir string) error {
	if err := os.MkdirAll(dir, 0o1777); err != nil {
		return fmt.Errorf("creating /dev/shm: %w", err)
	}
	t, err := fsType(dir)
	if err != nil {
		return err
	}
	parent, err := fsID(filepath.Dir(dir))
	if err != nil {
		return err
	}
	if own, err := fsID(dir); err == nil && t == unix.TMPFS_MAGIC && own != parent {
		return nil
	}
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,"+shmSize); err != nil {
		return fmt.Errorf("mounting /dev/shm: %w", err)
	}
	failpoint.Hit("shm-mounted")
	return nil
}

func isPinned(path string) (bool, error) {
	t, err := fsType(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return t == unix.NSFS_MAGIC, err
}

func fsType(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("inspecting %s: %w", path, err)
	}
	return int64(st.Type), nil
}

func fsID(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("inspecting %s: %w", path, err)
	}
	return uint64(st.Dev), nil
}
