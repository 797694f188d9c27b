package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/osthread"
)

// NetnsDir is where named network namespaces are pinned, as ip-netns(8) has it.
const NetnsDir = "/run/netns"

// Namespace is an open network namespace. Its methods may be called concurrently.
type Namespace struct {
	// Name is the name under which `ip netns` lists it.
	Name string
	file *os.File
}

// CreateNamespace makes a network namespace with its loopback up and pins it under name. A
// namespace of that name must not exist.
func CreateNamespace(name string) (*Namespace, error) {
	if err := shareNetnsDir(); err != nil {
		return nil, err
	}
	path := filepath.Join(NetnsDir, name)
	pin, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("create network namespace: %w", err)
	}
	pin.Close()
	ns := &Namespace{Name: name}
	err = osthread.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin network namespace: %w", err)
		}
		if ns.file, err = os.Open(path); err != nil {
			return err
		}
		return linkUp("lo")
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create network namespace %s: %w", name, err), DeleteNamespace(name))
	}
	return ns, nil
}

// DeleteNamespace removes the pin of a network namespace; the namespace itself ends with its last
// process and file descriptor. A name that does not exist is no error.
func DeleteNamespace(name string) error {
	path := filepath.Join(NetnsDir, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unpin network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete network namespace: %w", err)
	}
	return nil
}

// Namespaces lists the names of pinned network namespaces that begin with prefix.
func Namespaces(prefix string) ([]string, error) {
	entries, err := os.ReadDir(NetnsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// shareNetnsDir makes the directory of named namespaces a shared mount of its own, exactly as
// ip-netns(8) does when it is the first to come. Left undone, a later `ip netns add` would cover
// our pins with a copy of them.
func shareNetnsDir() error {
	if err := os.MkdirAll(NetnsDir, 0o755); err != nil {
		return fmt.Errorf("create directory of network namespaces: %w", err)
	}
	err := unix.Mount("", NetnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) {
		if err := unix.Mount(NetnsDir, NetnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount directory of network namespaces: %w", err)
		}
		err = unix.Mount("", NetnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("share directory of network namespaces: %w", err)
	}
	return nil
}

// NetnsDirMounted says whether the directory of named namespaces is a mount of its own, as the
// first use of named network namespaces makes it.
func NetnsDirMounted() bool {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(NetnsDir))
	return err == nil && len(mounts) > 0
}

// ReleaseNetnsDir removes the directory of named network namespaces, unless another program has
// names there.
func ReleaseNetnsDir() error {
	names, err := Namespaces("")
	if err != nil || len(names) > 0 {
		return err
	}
	// Without MNT_DETACH the kernel refuses when a pin came in between.
	err = unix.Unmount(NetnsDir, unix.UMOUNT_NOFOLLOW)
	if err != nil && !slices.Contains([]error{unix.EINVAL, unix.EBUSY, unix.ENOENT}, err) {
		return fmt.Errorf("unmount directory of network namespaces: %w", err)
	}
	err = unix.Rmdir(NetnsDir)
	if err != nil && !slices.Contains([]error{unix.ENOENT, unix.ENOTEMPTY, unix.EBUSY}, err) {
		return fmt.Errorf("remove directory of network namespaces: %w", err)
	}
	return nil
}

// Do calls fn on a thread inside the namespace and returns its error. Sockets that fn opens stay in
// the namespace; goroutines that fn starts do not run in it.
func (n *Namespace) Do(fn func() error) error {
	return osthread.Do(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
		}
		return fn()
	})
}

// Close closes the namespace but leaves its pin.
func (n *Namespace) Close() error {
	return n.file.Close()
}
