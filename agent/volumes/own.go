package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a group may do with what is its own, and the bit by which what is made in a directory becomes the group's too.
const (
	groupFile = 0o660
	groupDir  = 0o770
)

// Own gives a volume's root, and all that is in it, to the group, which may read and write it from then on. Files made
// later get the group of their directory. Unless it is to be done always, a volume whose root is as it should be is left
// alone: then so is what is in it, as far as anybody knows. Other file systems that are mounted below stay as they are.
// With no group nothing is done.
func Own(dir string, group Group, always bool) error {
	if group == nil {
		return nil
	}
	gid := uint32(*group)
	var at unix.Stat_t
	if err := unix.Stat(dir, &at); err != nil {
		return fmt.Errorf("looking at %s: %w", dir, err)
	}
	if !always && at.Gid == gid && at.Mode&unix.S_ISGID != 0 && at.Mode&groupDir == groupDir {
		return nil
	}
	// Containers may swap a directory for a link while this goes on; a root does not follow it out.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	// The root comes last: a volume that this was cut off in shows by it.
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != "." {
			err = ownOne(root, path, gid, at.Dev)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err == nil {
		err = ownOne(root, ".", gid, at.Dev)
	}
	if err != nil {
		return fmt.Errorf("giving %s to group %d: %w", dir, gid, err)
	}
	return nil
}

func ownOne(root *os.Root, path string, gid uint32, dev uint64) error {
	info, err := root.Lstat(path)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Dev != dev {
		if info.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if err := root.Lchown(path, -1, int(gid)); err != nil {
		return err
	}
	mode := info.Mode()
	switch {
	case mode&fs.ModeSymlink != 0:
		return nil
	case mode.IsDir():
		mode |= groupDir | fs.ModeSetgid
	default:
		mode |= groupFile
	}
	return root.Chmod(path, mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
}
