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

// Names in a projected volume that are not its files: a link to the directory that holds the
// present ones, and what such a directory's name begins with. Kubernetes uses the same; programs
// watch them.
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

// Project makes dir hold exactly these files, by their paths, and reports whether that changed
// anything. A reader sees all the old files or all the new ones: they are made in a directory of
// their own, to which one link leads, and that is replaced at once. The old directory stays until
// the next call, for readers that have read the link and not followed it yet. With inMemory nothing
// reaches a disk, not even by swapping where Linux can prevent that (6.4).
//
// Points are paths in the volume at which containers have something else mounted (see MountPoint).
// What is there is never replaced, nor any directory above it, so that the mounts outlive changes
// of the files. Files at or below a point are hidden.
func Project(dir string, files map[string]File, points []string, group Group, inMemory bool) (changed bool, err error) {
	if inMemory {
		err = mountUnswapped(dir)
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return false, err
	}
	if err := checkPaths(files, points); err != nil {
		return false, err
	}
	if err := ownRoot(dir, 0o755, group); err != nil {
		return false, err
	}
	now, _ := os.Readlink(filepath.Join(dir, present))
	if now != "" && same(filepath.Join(dir, now), files, group) {
		// Links may be missing of a turn that was cut off.
		return false, link(dir, files, points, group, now)
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
	return true, link(dir, files, points, group, filepath.Base(next), now)
}

// checkPaths refuses files that can't be in a volume, or not together.
func checkPaths(files map[string]File, points []string) error {
	clean := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Clean(name)
		if !filepath.IsLocal(name) || path == "." || strings.HasPrefix(name, prefix) {
			return fmt.Errorf("%w: %q is outside of the volume", ErrUnfit, name)
		}
		if other, ok := clean[path]; ok {
			return fmt.Errorf("%w: %q and %q are the same file", ErrUnfit, other, name)
		}
		clean[path] = name
	}
	for _, path := range slices.Sorted(maps.Keys(clean)) {
		for above := filepath.Dir(path); above != "."; above = filepath.Dir(above) {
			if other, ok := clean[above]; ok {
				return fmt.Errorf("%w: %q can't be both a file and the directory of %q", ErrUnfit, other, clean[path])
			}
		}
	}
	for _, point := range points {
		if first, _, _ := strings.Cut(point, "/"); !filepath.IsLocal(point) || strings.HasPrefix(first, prefix) {
			return fmt.Errorf("%w: invalid mount point %q", ErrUnfit, point)
		}
		for above := filepath.Dir(point); above != "."; above = filepath.Dir(above) {
			if other, ok := clean[above]; ok {
				return fmt.Errorf("%w: invalid mount point %q: %q is a file", ErrUnfit, point, other)
			}
		}
	}
	return nil
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
		content, err := os.ReadFile(path) //nolint:gosec // only the agent writes below this directory
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

// link makes the volume's root lead to the files in the present directory, and removes what is
// neither that nor kept. A directory in which something is mounted is a directory in the root
// itself, and what leads to the files is in it.
func link(dir string, files map[string]File, points []string, group Group, keep ...string) error {
	links, dirs, kept := map[string]bool{}, map[string]bool{}, map[string]bool{present: true}
	for _, name := range keep {
		kept[name] = true
	}
	for _, point := range points {
		kept[point] = true
		for above := filepath.Dir(point); above != "."; above = filepath.Dir(above) {
			dirs[above] = true
		}
	}
	for name := range files {
		path := filepath.Clean(name)
		for i := range len(path) + 1 {
			if i < len(path) && path[i] != '/' {
				continue
			}
			if part := path[:i]; !dirs[part] {
				links[part] = !kept[part]
				break
			}
		}
	}
	for _, sub := range slices.Sorted(maps.Keys(dirs)) {
		if err := makeRealDir(filepath.Join(dir, sub), group); err != nil {
			return err
		}
	}
	for name, shown := range links {
		if !shown {
			continue
		}
		path, to := filepath.Join(dir, name), strings.Repeat("../", strings.Count(name, "/"))+filepath.Join(present, name)
		if have, err := os.Readlink(path); err == nil && have == to {
			continue
		}
		// Previous agents wrote the files themselves here.
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Symlink(to, path); err != nil {
			return err
		}
	}
	return tidy(dir, "", func(path string) (stays, inside bool) { return kept[path] || links[path] || dirs[path], dirs[path] }, kept)
}

// makeRealDir makes a directory, in place of the link that may have been there.
func makeRealDir(path string, group Group) error {
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return ownRoot(path, 0o755, group)
}

// tidy removes what does not stay of the directory sub of a volume, and the links at points, which
// are those kept: what is mounted there must be visible in the volume and not in its present files.
func tidy(dir, sub string, known func(path string) (stays, inside bool), kept map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(dir, sub))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(sub, e.Name())
		stays, inside := known(path)
		switch {
		case !stays, kept[path] && path != present && e.Type() == fs.ModeSymlink:
			errs = append(errs, os.RemoveAll(filepath.Join(dir, path)))
		case inside && !kept[path]:
			errs = append(errs, tidy(dir, path, known, kept))
		}
	}
	return errors.Join(errs...)
}
