// Package machine simulates Linux machines with the kernel's own means. A machine is a network,
// mount and UTS namespace and a cgroup subtree: it has its own addresses, host name, /run and
// bpffs, and shares kernel, root file system and process ids with the real machine. Machines meet
// on a Wire and nowhere else.
//
// A machine's mounts live in its own mount namespace, which only its processes and the Machine
// value hold: when those
// end, every mount, pinned map and pinned namespace that they made is gone, as after a power cut.
package machine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/osthread"
	"github.com/xebec-project/xebec/lab/cgroup"
)

// Config describes a machine.
type Config struct {
	// Name is its host name, and the name of its port on the wire: at most 15 bytes.
	Name string
	// Namespace is the name of its network namespace.
	Namespace string
	// Addr is its address on the wire, Addr6 its IPv6 address there, if it is to have one.
	Addr, Addr6 netip.Addr
	// Cgroup is the path of its subtree in every cgroup hierarchy.
	Cgroup string
	// Weight is how many times the processor time of another machine this one gets when there is not
	// enough; 0 is 1.
	Weight int
	// Keep are directories that must stay visible even when they lie on mounts of their own.
	Keep []string
	// Files are single files put over others: target path to source path. Both exist.
	Files map[string]string
}

// closeTimeout bounds how long Close waits for processes that are still leaving their cgroups, on a
// busy machine.
const closeTimeout = 30 * time.Second

// Machine is a running machine. Its methods may be called concurrently, but for Close and Kill.
type Machine struct {
	cfg  Config
	hier cgroup.Hierarchies
	wire *Wire
	net  *Namespace
	mnt  *os.File
	uts  *os.File
}

// Boot makes the namespaces and cgroups of a machine and plugs it into the wire. No process runs in
// it yet.
func Boot(hier cgroup.Hierarchies, wire *Wire, cfg Config) (*Machine, error) {
	m := &Machine{cfg: cfg, hier: hier, wire: wire}
	if err := m.boot(); err != nil {
		return nil, errors.Join(fmt.Errorf("boot %s: %w", cfg.Name, err), m.Close())
	}
	return m, nil
}

func (m *Machine) boot() error {
	if err := m.hier.Create(m.cfg.Cgroup, true); err != nil {
		return err
	}
	if err := m.hier.Weigh(m.cfg.Cgroup, max(m.cfg.Weight, 1)); err != nil {
		return err
	}
	var err error
	if m.net, err = CreateNamespace(m.cfg.Namespace); err != nil {
		return err
	}
	if err := m.wire.plug(m.cfg.Name, m.net, m.cfg.Addr, m.cfg.Addr6); err != nil {
		return err
	}
	return m.net.Do(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("unshare mounts: %w", err)
		}
		if err := unix.Sethostname([]byte(m.cfg.Name)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
		if err := m.mount(); err != nil {
			return err
		}
		if m.mnt, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
			return err
		}
		m.uts, err = os.Open("/proc/thread-self/ns/uts")
		return err
	})
}

// mount turns the calling thread's copy of the real machine's mounts into the machine's.
func (m *Machine) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := m.pruneMounts(); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"/run/lock", "/run/tmp"} {
		if err := os.Mkdir(dir, 0o1777); err != nil {
			return err
		}
	}
	if err := mountSysfs(); err != nil {
		return err
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	for target, source := range m.cfg.Files {
		if err := coverFile(target, source); err != nil {
			return err
		}
	}
	return nil
}

// pruneMounts unmounts everything that the machine does not need. A copy left here would keep the
// file systems and namespaces of unrelated programs, and of other labs, from ever going away.
func (m *Machine) pruneMounts() error {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	needed := append([]string{"/bin", "/etc", "/home", "/lib", "/lib64", "/opt", "/root", "/sbin", "/tmp", "/usr", "/var"}, m.cfg.Keep...)
	for _, mount := range slices.Backward(mounts) {
		path := mount.Mountpoint
		system := slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, func(top string) bool { return within(path, top) })
		if path == "/" || system || slices.ContainsFunc(needed, func(n string) bool { return within(n, path) }) {
			continue
		}
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}

// mountSysfs replaces /sys by one that shows the machine's own network devices, with the cgroup
// mounts carried over.
func mountSysfs() error {
	const next = "/run/sys"
	if err := os.Mkdir(next, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("sysfs", next, "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	if err := unix.Mount("/sys/fs/cgroup", next+"/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind cgroup mounts: %w", err)
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount /sys: %w", err)
	}
	if err := unix.Mount(next, "/sys", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move sysfs to /sys: %w", err)
	}
	return os.Remove(next)
}

// coverFile binds source over target. A target that is a link into /run, as /etc/resolv.conf often
// is, is made there.
func coverFile(target, source string) error {
	if link, err := os.Readlink(target); err == nil {
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(target), link)
		}
		target = link
		if within(target, "/run") {
			if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(target, nil, 0o644); err != nil {
				return err
			}
		}
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

// within says whether path is top or lies below it.
func within(path, top string) bool {
	return path == top || top == "/" || strings.HasPrefix(path, top+"/")
}

// Start starts cmd inside the machine, in the cgroup of that name below the machine's own, which
// gets weight times the processor time of others there. The caller waits for it. cmd's CgroupFD is
// set here; its environment gets a TMPDIR of the machine.
func (m *Machine) Start(cmd *exec.Cmd, group string, weight int) error {
	path := filepath.Join(m.cfg.Cgroup, group)
	if err := m.hier.Create(path, false); err != nil {
		return err
	}
	if err := m.hier.Weigh(path, weight); err != nil {
		return err
	}
	cmd.Env = append(cmd.Environ(), "TMPDIR=/run/tmp")
	return startIn(m.hier, path, cmd, m.enter)
}

// enter moves the calling thread into the machine.
func (m *Machine) enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	for _, ns := range []struct {
		file *os.File
		kind int
	}{{m.net.file, unix.CLONE_NEWNET}, {m.uts, unix.CLONE_NEWUTS}, {m.mnt, unix.CLONE_NEWNS}} {
		if err := unix.Setns(int(ns.file.Fd()), ns.kind); err != nil {
			return fmt.Errorf("enter %s: %w", m.cfg.Name, err)
		}
	}
	return nil
}

// startIn starts cmd from a thread of its own that first calls enter and joins the cgroup.
func startIn(hier cgroup.Hierarchies, path string, cmd *exec.Cmd, enter func() error) error {
	dir, err := hier.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	return osthread.Do(func() error {
		if err := hier.JoinThread(path); err != nil {
			return err
		}
		if err := enter(); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// StartOutside starts cmd in a cgroup of all hierarchies, which exists, without entering any
// namespace.
func StartOutside(hier cgroup.Hierarchies, path string, cmd *exec.Cmd) error {
	return startIn(hier, path, cmd, func() error { return nil })
}

// References returns the descriptors that hold the machine's namespaces in this process, by which
// another process may enter them: open /proc/<pid>/fd/<n>.
func (m *Machine) References() References {
	return References{PID: os.Getpid(), Net: int(m.net.file.Fd()), UTS: int(m.uts.Fd()), Mnt: int(m.mnt.Fd()), Cgroup: m.cfg.Cgroup}
}

// References are the namespaces of a machine held by another process.
type References struct {
	// PID is the process that holds them.
	PID int `json:"pid"`
	// Net, UTS and Mnt are its descriptors.
	Net int `json:"net"`
	UTS int `json:"uts"`
	Mnt int `json:"mnt"`
	// Cgroup is the machine's cgroup path.
	Cgroup string `json:"cgroup"`
}

// Start starts cmd inside the machine, in the cgroup of that name below the machine's own, from a
// process that does not own the machine.
func (r References) Start(hier cgroup.Hierarchies, cmd *exec.Cmd, group string) error {
	m := Machine{cfg: Config{Cgroup: r.Cgroup}, hier: hier}
	open := func(fd int) (*os.File, error) { return os.Open(fmt.Sprintf("/proc/%d/fd/%d", r.PID, fd)) }
	net, err := open(r.Net)
	if err != nil {
		return err
	}
	defer net.Close()
	m.net = &Namespace{file: net}
	if m.uts, err = open(r.UTS); err != nil {
		return err
	}
	defer m.uts.Close()
	if m.mnt, err = open(r.Mnt); err != nil {
		return err
	}
	defer m.mnt.Close()
	return m.Start(cmd, group, 1)
}

// Kill ends every process of the machine with SIGKILL, containers included, and returns once none
// is left.
func (m *Machine) Kill(ctx context.Context) error {
	return m.hier.Kill(ctx, m.cfg.Cgroup)
}

// Close lets go of the namespaces and removes the machine's wire and cgroups. Its processes have
// ended: see Kill.
func (m *Machine) Close() error {
	var errs []error
	for _, f := range []*os.File{m.mnt, m.uts} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if m.net != nil {
		errs = append(errs, m.wire.unplug(m.cfg.Name), m.net.Close(), DeleteNamespace(m.net.Name))
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	errs = append(errs, m.hier.Remove(ctx, m.cfg.Cgroup))
	return errors.Join(errs...)
}
