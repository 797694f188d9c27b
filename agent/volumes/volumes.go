// Package volumes makes what pods' volumes stand for on the node: directories, memory, paths of the
// node, and files that follow objects of the control plane.
//
// All functions are idempotent, so that an agent that takes over from another calls them again.
package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// ErrUnfit wraps why a path is not what a volume, or a mount of it, asks for.
var ErrUnfit = errors.New("invalid path")

// Group is the group that owns a volume's files beside their user; nil for none.
type Group *int64

// Empty makes a directory that all containers of the pod may write to. The group of existing
// contents is set again if the policy is Always.
func Empty(dir string, group Group, always bool) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return open(dir, group, always)
}

// open lets everybody write to a directory.
func open(dir string, group Group, always bool) error {
	if err := Own(dir, group, always); err != nil {
		return err
	}
	return ownRoot(dir, 0o777, group)
}

// Memory makes a file system in memory, of at most so many bytes; 0 stands for half of the
// machine's. Otherwise it is as Empty.
func Memory(dir string, size int64, group Group, always bool) error {
	options := "mode=0755"
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	if err := mountMemory(dir, options); err != nil {
		return err
	}
	return open(dir, group, always)
}

// Secret makes a directory that only root may enter and that lies in memory: nothing in it reaches
// a disk, nor, where Linux can prevent it (6.4), the swap space. It stays until the machine
// restarts.
func Secret(dir string) error {
	if err := mountUnswapped(dir); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// mountUnswapped is mountMemory for what is never to reach a disk.
func mountUnswapped(dir string) error {
	err := mountMemory(dir, "mode=0755,noswap")
	if errors.Is(err, unix.EINVAL) {
		// Before 6.4 the option is unknown.
		err = mountMemory(dir, "mode=0755")
	}
	return err
}

// mountMemory mounts a file system in memory, unless there is one.
func mountMemory(dir, options string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var st, parent unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &st), unix.Stat(filepath.Dir(dir), &parent)); err != nil {
		return err
	}
	if st.Dev != parent.Dev {
		return nil
	}
	if err := unix.Mount("xebec-volume", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mounting a tmpfs at %s: %w", dir, err)
	}
	failpoint.Hit("memory-volume-mounted")
	return nil
}

func ownRoot(dir string, mode fs.FileMode, group Group) error {
	if group != nil {
		// Files made in the directory get its group.
		mode |= fs.ModeSetgid
		if err := os.Chown(dir, -1, int(*group)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, mode)
}

// Remove removes all volumes in a directory with all that is in them; paths of the node are not in
// it. A directory that does not exist is no error.
func Remove(root string) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		// A volume in memory is a mount, and so are files of an image, which must not be removed.
		if err := unmountAll(filepath.Join(root, e.Name())); err != nil {
			return err
		}
	}
	failpoint.Hit("volumes-unmounted")
	return os.RemoveAll(root)
}

// unmountAll unmounts what is mounted at a path, also where that happened more than once. A path
// without a mount is no error.
func unmountAll(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
	}
}

// Mounted reports whether something is mounted at a path. Nothing is at one that does not exist.
func Mounted(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Usage returns the bytes of disk that the files below dir take, without those of other file
// systems, nor those below the paths in dir to leave out. Containers may change what is there
// meanwhile: no link is followed.
func Usage(dir string, leaveOut ...string) (int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	own, err := lstat(root, ".")
	if err != nil {
		return 0, err
	}
	var sum int64
	counted := map[uint64]bool{}
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		st, err := lstat(root, path)
		switch {
		case gone(err):
			return nil
		case err != nil:
			return err
		case e.IsDir() && (st.Dev != own.Dev || slices.Contains(leaveOut, path)):
			return fs.SkipDir
		}
		if st.Nlink > 1 && !e.IsDir() {
			if counted[st.Ino] {
				return nil
			}
			counted[st.Ino] = true
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}

// gone reports whether an error says that a file, or a directory on the way to it, was removed or
// replaced meanwhile. That it was replaced by a link out of the directory is no error of the
// system's.
func gone(err error) bool {
	var number syscall.Errno
	return err != nil &&
		(errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || !errors.As(err, &number))
}

func lstat(root *os.Root, path string) (*syscall.Stat_t, error) {
	info, err := root.Lstat(path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, &os.PathError{Op: "lstat", Path: path, Err: errors.ErrUnsupported}
	}
	return st, nil
}
