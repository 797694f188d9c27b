// Package volumes makes what pods' volumes stand for on the node: directories, memory, paths of the node, and files that
// follow objects of the control plane.
//
// All functions are idempotent, so that an agent that takes over from another calls them again.
package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// ErrUnfit wraps why a path of the node is not what a volume asks for.
var ErrUnfit = errors.New("unfit host path")

// Group is the group that owns a volume's files beside their user; nil for none.
type Group *int64

// Empty makes a directory that all containers of the pod may write to. What is in it already is given to the group anew
// where that is always to be done.
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

// Memory makes a file system in memory, of at most so many bytes; 0 stands for half of the machine's. Otherwise it is as
// Empty.
func Memory(dir string, size int64, group Group, always bool) error {
	if err := mountMemory(dir, size); err != nil {
		return err
	}
	return open(dir, group, always)
}

func mountMemory(dir string, size int64) error {
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
	options := "mode=0755"
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	if err := unix.Mount("xebec-volume", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mounting memory at %s: %w", dir, err)
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

// HostPath checks a path of the node, or makes it, by its type: one of Kubernetes', or empty for anything that exists.
// The error wraps ErrUnfit when the path is not of the type.
func HostPath(path, sort string) error {
	switch sort {
	case "DirectoryOrCreate":
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	case "FileOrCreate":
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if sort == "" {
			// Without a type nothing is asked of the path; a container runtime makes a directory of it.
			return os.MkdirAll(path, 0o755)
		}
		hint := "make it on the node"
		if sort == "Directory" || sort == "File" {
			hint += ", or have it made by type " + sort + "OrCreate"
		}
		return fmt.Errorf("%w: %w: %s", ErrUnfit, err, hint)
	}
	if err != nil {
		return err
	}
	fits := map[string]bool{
		"": true, "DirectoryOrCreate": st.IsDir(), "Directory": st.IsDir(), "FileOrCreate": st.Mode().IsRegular(), "File": st.Mode().IsRegular(),
		"Socket": st.Mode().Type() == fs.ModeSocket, "BlockDevice": st.Mode().Type() == fs.ModeDevice,
		"CharDevice": st.Mode().Type() == fs.ModeDevice|fs.ModeCharDevice,
	}
	if !fits[sort] {
		return fmt.Errorf("%w: %s is no %s but %v", ErrUnfit, path, sort, st.Mode())
	}
	return nil
}

// Remove removes all volumes in a directory with all that is in them; paths of the node are not in it. A directory that
// does not exist is no error.
func Remove(root string) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		// A volume in memory is a mount. For the others this fails, and need not work.
		_ = unix.Unmount(filepath.Join(root, e.Name()), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	failpoint.Hit("volumes-unmounted")
	return os.RemoveAll(root)
}

// Usage returns the bytes of disk that the files below dir take, without those of other file systems.
func Usage(dir string) (int64, error) {
	var root unix.Stat_t
	if err := unix.Lstat(dir, &root); err != nil {
		return 0, err
	}
	var sum int64
	counted := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		switch err := unix.Lstat(path, &st); {
		case errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return err
		case st.Dev != root.Dev && e.IsDir():
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

// Within returns where a path inside a volume is on the node, and makes a directory there when there is nothing. The
// error wraps ErrUnfit when the path leads out of the volume, as by a link that a container made.
func Within(volume, sub string) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("%w: %q leaves the volume", ErrUnfit, sub)
	}
	root, err := os.OpenRoot(volume)
	if err != nil {
		// A volume that is a single file has no paths in it.
		return "", fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	defer root.Close()
	if _, err := root.Stat(sub); errors.Is(err, fs.ErrNotExist) {
		if err := root.MkdirAll(sub, 0o755); err != nil {
			return "", fmt.Errorf("%w: making %q: %w", ErrUnfit, sub, err)
		}
	} else if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	base, err := filepath.EvalSymlinks(volume)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(volume, sub))
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(real+"/", strings.TrimSuffix(base, "/")+"/") {
		return "", fmt.Errorf("%w: %q leaves the volume", ErrUnfit, sub)
	}
	return real, nil
}
