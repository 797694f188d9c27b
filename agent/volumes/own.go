package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// What a group may do with what is its own, and the bit by which what is made in a directory
// becomes the group's too.
const (
	groupFile = 0o660
	groupDir  = 0o770
)

// Own gives a volume's root, and all that is in it, to the group, which may read and write it from
// then on. Files made later get the group of their directory. Unless always is set, a volume whose
// root has the right owner and mode is left unchanged: its contents have been changed before. Other
// file systems that are mounted below stay as they are. With no group nothing is done.
func Own(dir string, group Group, always bool) error {
	if group == nil {
		return nil
	}
	gid := uint32(*group)
	var at unix.Stat_t
	if err := unix.Stat(dir, &at); err != nil {
		return fmt.Errorf("inspecting %s: %w", dir, err)
	}
	if !always && at.Gid == gid && at.Mode&unix.S_ISGID != 0 && at.Mode&groupDir == groupDir {
		return nil
	}
	// Containers may swap a directory for a link while this goes on. It is not followed out, and what
	// is changed is what was looked at.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	base, err := Open(dir)
	if err != nil {
		return err
	}
	defer base.Close()
	// The root comes last: a volume that this was cut off in shows by it.
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != "." {
			err = ownOne(base, path, gid, at.Dev)
		}
		if errors.Is(err, fs.SkipDir) {
			return err
		}
		if path != "." && (gone(err) || errors.Is(err, unix.EXDEV)) {
			return nil
		}
		return err
	})
	if err == nil {
		err = ownOne(base, ".", gid, at.Dev)
	}
	if err != nil {
		return fmt.Errorf("changing the group of %s to %d: %w", dir, gid, err)
	}
	return nil
}

func ownOne(base *os.File, path string, gid uint32, dev uint64) error {
	f, err := lookup(base, path, unix.O_PATH|unix.O_NOFOLLOW, inVolume)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	sort := st.Mode & unix.S_IFMT
	if st.Dev != dev {
		if sort == unix.S_IFDIR {
			return fs.SkipDir
		}
		return nil
	}
	if err := unix.Fchownat(fd, "", -1, int(gid), unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "chown", Path: f.Name(), Err: err}
	}
	mode := st.Mode & 0o7777
	switch sort {
	case unix.S_IFLNK:
		return nil
	case unix.S_IFDIR:
		mode |= groupDir | unix.S_ISGID
	default:
		mode |= groupFile
	}
	// By what is open: the path may lead elsewhere by now.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode); err != nil {
		return &os.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return nil
}
