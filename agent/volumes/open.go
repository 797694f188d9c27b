package volumes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// How paths are looked up. What a process of the node has open is never reached by a path, and a
// path in a volume never leaves it: links may lead wherever they like within the volume.
const (
	onNode   = unix.RESOLVE_NO_MAGICLINKS
	inVolume = unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH
	inRoot   = unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_IN_ROOT
)

// lookupTries bounds how often a look-up is repeated that containers interfere with.
const lookupTries = 100

// Open opens a directory that the agent made for a volume. The holder of the descriptor has the
// directory, whatever becomes of its path.
func Open(dir string) (*os.File, error) {
	return os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// lookup opens a path relative to a directory. The kernel resolves it in one go, so that there is
// no moment between a check of the path and its use.
func lookup(dir *os.File, path string, flags int, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o644
	}
	for tries := 1; ; tries++ {
		fd, err := unix.Openat2(int(dir.Fd()), path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), path)), nil
		case (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && tries < lookupTries:
			continue
		}
		return nil, &os.PathError{Op: "open", Path: filepath.Join(dir.Name(), path), Err: err}
	}
}

// lookupOrMake is lookup of a path whose missing directories are made, with the permission bits
// given.
func lookupOrMake(dir *os.File, path string, resolve uint64, mode uint32) (*os.File, error) {
	var err error
	for range lookupTries {
		var f *os.File
		f, err = lookup(dir, path, unix.O_PATH, resolve)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		if err := makeMissing(dir, path, resolve, mode); err != nil {
			return nil, err
		}
	}
	return nil, err
}

// makeMissing makes the directories of a path that are missing, each by the descriptor of the one
// above it.
func makeMissing(dir *os.File, path string, resolve uint64, mode uint32) error {
	at, err := lookup(dir, ".", unix.O_PATH, resolve)
	if err != nil {
		return err
	}
	defer func() { at.Close() }()
	parts := strings.Split(path, "/")
	for i, name := range parts {
		next, err := lookup(dir, filepath.Join(parts[:i+1]...), unix.O_PATH, resolve)
		if errors.Is(err, fs.ErrNotExist) {
			next, err = makeDir(at, name, mode)
		}
		if err != nil {
			return err
		}
		at.Close()
		at = next
	}
	return nil
}

// makeDir makes a directory in another one, and opens it. One that is there already is opened as it
// is.
func makeDir(at *os.File, name string, mode uint32) (*os.File, error) {
	failed := func(err error) error {
		return &os.PathError{Op: "mkdir", Path: filepath.Join(at.Name(), name), Err: err}
	}
	err := unix.Mkdirat(int(at.Fd()), name, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, failed(err)
	}
	made := err == nil
	fd, err := unix.Openat(int(at.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			err = fmt.Errorf("dangling link, or not a directory: %w", err)
		}
		return nil, failed(err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join(at.Name(), name))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(failed(err), f.Close())
	}
	// A container may have put a directory of its own there meanwhile, the rights of which are its own
	// affair. The group's bit comes from the directory above.
	if made && int(st.Uid) == os.Geteuid() {
		if err := unix.Fchmod(fd, mode&0o777|st.Mode&unix.S_ISGID); err != nil {
			return nil, errors.Join(failed(err), f.Close())
		}
	}
	return f, nil
}

// Within opens a path inside a volume, of which dir is the directory, and makes directories with
// the volume's own permission bits where there is nothing. The error wraps ErrUnfit when the path
// leads out of the volume, as by a link that a container made.
func Within(dir *os.File, sub string) (*os.File, error) {
	if !filepath.IsLocal(sub) || slices.Contains(strings.Split(sub, "/"), "..") {
		return nil, fmt.Errorf("%w: %q is outside of the volume", ErrUnfit, sub)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("%w: the volume is not a directory and cannot contain %q", ErrUnfit, sub)
	}
	f, err := lookupOrMake(dir, filepath.Clean(sub), inVolume, st.Mode)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%w: %q leads outside of the volume by a link: %w", ErrUnfit, sub, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	return f, nil
}

// ReadFile reads a file of a volume, of which dir is the directory, as the pod's containers see it:
// links lead to where they do with the volume as root. The error wraps ErrUnfit when what is there
// is no file or larger than max bytes, and fs.ErrNotExist when there is nothing.
func ReadFile(dir, path string, max int64) ([]byte, error) {
	root, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// The open of a pipe must not wait for a writer.
	f, err := lookup(root, path, unix.O_RDONLY|unix.O_NONBLOCK, inRoot)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is a %s, want a file", ErrUnfit, f.Name(), describe(info.Mode()))
	}
	content, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(content)) > max {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrUnfit, f.Name(), max)
	}
	return content, err
}

// InRoot opens a path inside a volume, of which dir is the directory, and makes nothing. Links lead
// to where they do with the volume as root.
func InRoot(dir *os.File, sub string) (*os.File, error) {
	return lookup(dir, sub, unix.O_PATH, inRoot)
}

// MountPoint makes an empty directory or file inside a volume, of which dir is the directory, for
// something to be mounted there by a container that can't make it itself. One that is there is left
// as it is. The error wraps ErrUnfit when what is there is of the other kind or outside of the
// volume.
func MountPoint(dir *os.File, path string, directory bool) error {
	path = filepath.Clean(path)
	if !filepath.IsLocal(path) || path == "." {
		return fmt.Errorf("%w: %q is outside of the volume", ErrUnfit, path)
	}
	f, err := lookup(dir, path, unix.O_PATH, inVolume)
	switch {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: creating mount point %q: %w", ErrUnfit, path, err)
	case directory:
		f, err = lookupOrMake(dir, path, inVolume, 0o755)
	default:
		f, err = makeFile(dir, path, inVolume)
	}
	if err != nil {
		return fmt.Errorf("%w: creating mount point %q: %w", ErrUnfit, path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() != directory {
		return fmt.Errorf("%w: mount point %q is a %v, and the source of the mount is not", ErrUnfit, path, describe(info.Mode()))
	}
	return nil
}

// makeFile makes an empty file in a directory that is made as well when it is missing.
func makeFile(dir *os.File, path string, resolve uint64) (*os.File, error) {
	at, err := lookupOrMake(dir, filepath.Dir(path), resolve, 0o755)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	f, err := lookup(at, filepath.Base(path), unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, resolve)
	if errors.Is(err, fs.ErrExist) {
		// Another one was faster.
		return lookup(at, filepath.Base(path), unix.O_PATH, resolve)
	}
	return f, err
}

// HostPath opens a path of the node, and checks that it is of a type, or makes it: one of
// Kubernetes' types, or empty for anything that exists. What is checked is what is returned, also
// when a container replaces a part of the path meanwhile. The error wraps ErrUnfit when the path is
// not of the type.
func HostPath(path, sort string) (*os.File, error) {
	root, err := Open("/")
	if err != nil {
		return nil, err
	}
	defer root.Close()
	below := strings.TrimPrefix(filepath.Clean("/"+path), "/")
	if below == "" {
		below = "."
	}
	f, err := lookup(root, below, unix.O_PATH, onNode)
	if errors.Is(err, fs.ErrNotExist) {
		switch sort {
		case "", "DirectoryOrCreate":
			// Without a type nothing is asked of the path; a container runtime makes a directory of it.
			f, err = lookupOrMake(root, below, onNode, 0o755)
		case "FileOrCreate":
			if f, err = makeFileOnNode(root, below); errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%w: %w: create its directory on the node", ErrUnfit, err)
			}
		default:
			hint := "create it on the node"
			if sort == "Directory" || sort == "File" {
				hint += ", or use type " + sort + "OrCreate"
			}
			return nil, fmt.Errorf("%w: %w: %s", ErrUnfit, err, hint)
		}
	}
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %w: the path contains a magic link, as in /proc, or a loop of links", ErrUnfit, err)
	}
	if err != nil {
		return nil, err
	}
	if err := ofType(f, path, sort); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// makeFileOnNode makes a file in a directory that exists.
func makeFileOnNode(root *os.File, path string) (*os.File, error) {
	at, err := lookup(root, filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, onNode)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	return makeFile(at, filepath.Base(path), onNode)
}

// ofType checks the type of a path of the node by its descriptor.
func ofType(f *os.File, path, sort string) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	fits := map[string]bool{
		"": true, "DirectoryOrCreate": st.IsDir(), "Directory": st.IsDir(), "FileOrCreate": st.Mode().IsRegular(), "File": st.Mode().IsRegular(),
		"Socket": st.Mode().Type() == fs.ModeSocket, "BlockDevice": st.Mode().Type() == fs.ModeDevice,
		"CharDevice": st.Mode().Type() == fs.ModeDevice|fs.ModeCharDevice,
	}
	if !fits[sort] {
		return fmt.Errorf("%w: %s is a %s, want type %s", ErrUnfit, path, describe(st.Mode()), sort)
	}
	return nil
}

// describe names the kind of a file.
func describe(m fs.FileMode) string {
	switch m.Type() {
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "link"
	case fs.ModeNamedPipe:
		return "pipe"
	case fs.ModeSocket:
		return "socket"
	case fs.ModeDevice:
		return "block device"
	case fs.ModeDevice | fs.ModeCharDevice:
		return "character device"
	}
	return "file"
}
