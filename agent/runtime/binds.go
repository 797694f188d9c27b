package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// attach gives the files of a container's mounts paths of their own for as long as runc takes to
// bind them into the container, and returns the mounts with these paths as sources. Runc resolves a
// path itself, and one that a container can change might lead it elsewhere than to what was
// checked; it can't bind a descriptor of the agent's, whose mount namespace it has left by then.
// Release takes the paths away again.
//
// The paths lie in a file system of their own that can't be bound: otherwise each container that
// binds the node's root would get a copy of all that the others have there, and the copies would
// multiply.
func (r *Runtime) attach(id string, mounts []Mount) (out []Mount, release func() error, err error) {
	out = append(out, mounts...)
	dir := filepath.Join(r.cfg.MountDir, id)
	made := false
	for i := range out {
		if out[i].File == nil {
			continue
		}
		if !made {
			if err := makeBindDir(dir); err != nil {
				return nil, nil, errors.Join(err, detach(dir))
			}
			made = true
		}
		out[i].Source = filepath.Join(dir, strconv.Itoa(i))
		if err := bindFile(out[i].File, out[i].Source); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("binding %s for %s: %w", out[i].File.Name(), out[i].Target, err), detach(dir))
		}
	}
	if !made {
		return out, func() error { return nil }, nil
	}
	failpoint.Hit("files-bound")
	return out, func() error { return detach(dir) }, nil
}

func makeBindDir(dir string) error {
	if err := detach(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("xebec-binds", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=64k"); err != nil {
		return fmt.Errorf("mounting a tmpfs at %s: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_UNBINDABLE, ""); err != nil {
		return fmt.Errorf("marking %s as unbindable: %w", dir, err)
	}
	return nil
}

// bindFile binds what is open, with all that is mounted below it, at a path that is made.
func bindFile(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(path, 0o700)
	} else {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		return err
	}
	tree, err := unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	return os.NewSyscallError("move_mount", unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// detach takes away what attach made. One that is not there is no error.
func detach(dir string) error {
	// What is bound here has peers elsewhere on the node: unmounted while it is one of them, it would
	// take what is mounted below it away from them too.
	err := unix.Mount("", dir, "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		// All goes at once, so that runc finds what it was given or nothing.
		err = unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", dir, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// detachAll takes away what a previous agent left of attach.
func detachAll(root string) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, detach(filepath.Join(root, e.Name())))
	}
	if err != nil {
		return fmt.Errorf("removing bind mounts of a previous agent: %w", err)
	}
	return nil
}
