package cp

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	slash "path"
	"path/filepath"
	"strings"
	"syscall"
)

// unpacker writes an archive that a container sends. What is in the archive is the container's
// word: nothing is written but the destination that was named, and what lies beneath it when that
// is a directory. No link is followed, whether it is from the archive or was there before.
// Ownership, setuid, setgid and sticky bits are left out, as are devices, pipes, and links that
// lead out of the destination; warn receives what is skipped.
type unpacker struct {
	// dir holds the destination, which is called name. In the archive it is called base.
	dir        *os.Root
	base, name string
	warn       func(format string, args ...any)

	// tree is the destination once it is known to be a directory; done tells that it is something
	// else, and written.
	tree *os.Root
	done bool
}

// errNothingSent is what an empty archive is answered with.
var errNothingSent = errors.New("the archive from the container is empty")

// unpack reads the archive to its end.
func (u *unpacker) unpack(from io.Reader) error {
	defer func() {
		if u.tree != nil {
			u.tree.Close()
		}
	}()
	archive := tar.NewReader(from)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			if u.tree == nil && !u.done {
				return errNothingSent
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive from the container: %w", err)
		}
		below, err := u.below(h.Name)
		if err != nil {
			return err
		}
		if below == "" {
			err = u.top(h, archive)
		} else {
			err = u.entry(u.tree, below, h, archive)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", filepath.Join(u.name, below), err)
		}
	}
}

// below returns what a name in the archive is called in the destination, empty for the destination
// itself.
func (u *unpacker) below(name string) (string, error) {
	rest, ok := strings.CutPrefix(slash.Clean(name), u.base)
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return "", fmt.Errorf("invalid archive from the container: it contains %q, want %q", name, u.base)
	case rest == "" && u.done:
		return "", fmt.Errorf("invalid archive from the container: it contains %q twice", name)
	case rest != "" && u.tree == nil:
		return "", fmt.Errorf("invalid archive from the container: it contains %q without the directory %q before it", name, u.base)
	}
	return strings.TrimPrefix(rest, "/"), nil
}

// top writes the destination itself.
func (u *unpacker) top(h *tar.Header, content io.Reader) error {
	switch {
	case h.Typeflag == tar.TypeDir && u.tree != nil:
		return nil
	case u.tree != nil:
		return errors.New("the archive from the container contains it as a directory and as another type")
	case h.Typeflag != tar.TypeDir:
		u.done = true
		return u.entry(u.dir, u.name, h, content)
	}
	if err := makeDir(u.dir, u.name, h); err != nil {
		return err
	}
	var err error
	u.tree, err = u.dir.OpenRoot(u.name)
	return err
}

// entry writes one file, directory or link below a directory.
func (u *unpacker) entry(root *os.Root, at string, h *tar.Header, content io.Reader) error {
	if err := realParents(root, at); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return makeDir(root, at, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return putFile(root, at, permissions(h), content)
	case tar.TypeSymlink:
		if root == u.dir {
			return fmt.Errorf("it is a link to %q in the container: copy that path instead", h.Linkname)
		}
		if !staysBelow(at, h.Linkname) {
			u.warn("skipped %s: it links to %s, outside of the destination", filepath.Join(u.name, at), h.Linkname)
			return nil
		}
		if err := makeRoom(root, at); err != nil {
			return err
		}
		return root.Symlink(h.Linkname, at)
	case tar.TypeLink:
		return u.hardLink(root, at, h.Linkname)
	}
	u.warn("skipped %s: it is neither a file, a directory nor a link", filepath.Join(u.name, at))
	return nil
}

// hardLink makes at another name of a file that came before in the archive.
func (u *unpacker) hardLink(root *os.Root, at, linkname string) error {
	target, err := u.below(linkname)
	if err != nil {
		return err
	}
	if target == "" || target == at {
		return fmt.Errorf("the archive from the container contains it as a hard link to %q", linkname)
	}
	if err := realParents(root, target); err != nil {
		return err
	}
	st, err := root.Lstat(target)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("the archive from the container contains it as a hard link to %q, which is not a regular file", linkname)
	}
	if err := makeRoom(root, at); err != nil {
		return err
	}
	return root.Link(target, at)
}

func permissions(h *tar.Header) fs.FileMode { return fs.FileMode(h.Mode).Perm() }

// realParents fails when a directory on the way to a file is a link.
func realParents(root *os.Root, at string) error {
	for i, c := range at {
		if c != '/' {
			continue
		}
		st, err := root.Lstat(at[:i])
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return fmt.Errorf("%s is a directory in the container but not on this machine", at[:i])
		}
	}
	return nil
}

// makeDir makes a directory, or takes the one that is there.
func makeDir(root *os.Root, at string, h *tar.Header) error {
	err := root.Mkdir(at, permissions(h)|0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := root.Lstat(at)
	if err == nil && !st.IsDir() {
		err = errors.New("it is a directory in the container but not on this machine")
	}
	return err
}

// putFile writes a file. One that is there keeps its permissions, unless it has other names, which
// keep their content.
func putFile(root *os.Root, at string, mode fs.FileMode, content io.Reader) error {
	flags := os.O_CREATE | os.O_WRONLY | os.O_EXCL
	if st, err := root.Lstat(at); err == nil && st.Mode().IsRegular() && onlyName(st) {
		flags = os.O_WRONLY | os.O_TRUNC
	} else if err := makeRoom(root, at); err != nil {
		return err
	}
	f, err := root.OpenFile(at, flags, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

func onlyName(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 1
}

// makeRoom makes room for something new: it removes a file or a link, and nothing else.
func makeRoom(root *os.Root, at string) error {
	st, err := root.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !st.Mode().IsRegular() && st.Mode()&fs.ModeSymlink == 0:
		return errors.New("the existing destination is neither a file nor a link")
	}
	return root.Remove(at)
}

// staysBelow reports whether a link at a place below a directory, all of whose parents are
// directories, leads to one below that directory again, whatever else is there, as long as the same
// holds for other links: the way may go up at its beginning only.
func staysBelow(at, target string) bool {
	if target == "" || slash.IsAbs(target) {
		return false
	}
	depth, down := strings.Count(at, "/"), false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; down || depth < 0 {
				return false
			}
		default:
			down = true
		}
	}
	return true
}
