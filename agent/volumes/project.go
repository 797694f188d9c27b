package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// Names in a projected volume that are not its files: a link to the directory that holds the present ones, and what such
// a directory's name begins with. Kubernetes uses the same; programs watch them.
const (
	present = "..data"
	prefix  = ".."
)

// File is a file of a projected volume.
type File struct {
	Content []byte
	// Mode holds the permission bits.
	Mode fs.FileMode
}

// Project makes dir hold exactly these files, by their paths, and reports whether that changed anything. A reader sees all
// the old files or all the new ones: they are made in a directory of their own, to which one link leads, and that is
// replaced at once. The old directory stays until the next call: whoever has read the link may be about to follow it. With
// inMemory nothing reaches a disk.
func Project(dir string, files map[string]File, group Group, inMemory bool) (changed bool, err error) {
	if inMemory {
		err = mountMemory(dir, 0)
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return false, err
	}
	for name := range files {
		if !filepath.IsLocal(name) || filepath.Clean(name) == "." || strings.HasPrefix(name, prefix) {
			return false, fmt.Errorf("%w: %q leaves the volume", ErrUnfit, name)
		}
	}
	if err := ownRoot(dir, 0o755, group); err != nil {
		return false, err
	}
	now, _ := os.Readlink(filepath.Join(dir, present))
	if now != "" && same(filepath.Join(dir, now), files, group) {
		// Links may be missing of a turn that was cut off.
		return false, link(dir, files, now)
	}
	next, err := os.MkdirTemp(dir, prefix+"data-")
	if err != nil {
		return false, err
	}
	if err := write(next, files, group); err != nil {
		return false, errors.Join(err, os.RemoveAll(next))
	}
	failpoint.Hit("volume-files-written")
	temp := filepath.Join(dir, present+"-new")
	_ = os.Remove(temp)
	if err := os.Symlink(filepath.Base(next), temp); err != nil {
		return false, err
	}
	if err := os.Rename(temp, filepath.Join(dir, present)); err != nil {
		return false, err
	}
	failpoint.Hit("volume-files-swapped")
	return true, link(dir, files, filepath.Base(next), now)
}

// write makes the files in a new directory.
func write(dir string, files map[string]File, group Group) error {
	if err := ownRoot(dir, 0o755, group); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, path := files[name], filepath.Join(dir, name)
		for sub := filepath.Dir(name); sub != "."; sub = filepath.Dir(sub) {
			at := filepath.Join(dir, sub)
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
			if err := ownRoot(at, 0o755, group); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, f.Content, 0o600); err != nil {
			return err
		}
		if group != nil {
			if err := os.Chown(path, -1, int(*group)); err != nil {
				return err
			}
		}
		if err := os.Chmod(path, mode(f, group)); err != nil {
			return err
		}
	}
	return nil
}

// mode lets the group read what is the group's.
func mode(f File, group Group) fs.FileMode {
	m := f.Mode.Perm()
	if group != nil {
		m |= 0o440
	}
	return m
}

// same reports whether a directory holds just these files.
func same(dir string, files map[string]File, group Group) bool {
	n := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, ok := files[name]
		if !ok {
			return fs.ErrNotExist
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if info.Mode().Perm() != mode(f, group) || !bytes.Equal(content, f.Content) {
			return fs.ErrExist
		}
		n++
		return nil
	})
	return err == nil && n == len(files)
}

// link makes the volume's root lead to the files in the present directory, and removes what is neither that nor kept.
func link(dir string, files map[string]File, keep ...string) error {
	tops := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(filepath.Clean(name), "/")
		tops[top] = true
	}
	for top := range tops {
		path, to := filepath.Join(dir, top), filepath.Join(present, top)
		if have, err := os.Readlink(path); err == nil && have == to {
			continue
		}
		// Agents before this one wrote the files themselves here.
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Symlink(to, path); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if name := e.Name(); name != present && !slices.Contains(keep, name) && !tops[name] {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}
