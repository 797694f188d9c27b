package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/lab/machine"
	"github.com/xebec-project/xebec/lab/topology"
)

// registryDir holds a link to its state directory for every lab that is up or was not taken down.
const registryDir = "/run/xebec/labs"

// netnsMark exists when a lab was the first on this machine to use named network namespaces, and so
// has to undo what that makes.
const netnsMark = "/run/xebec/netns-made"

// registered returns the state directory of a lab; fs.ErrNotExist when there is no such lab.
func registered(name string) (string, error) {
	return os.Readlink(filepath.Join(registryDir, name))
}

// Names returns the labs on this machine, also those whose supervisor was killed.
func Names() ([]string, error) {
	entries, err := os.ReadDir(registryDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// lockRegistry keeps other commands from bringing labs up or down until unlock is called. It waits
// for them.
func lockRegistry() (unlock func(), err error) {
	for {
		if err := os.MkdirAll(registryDir, 0o755); err != nil {
			return nil, fmt.Errorf("lock labs: %w", err)
		}
		dir, err := os.Open(registryDir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("lock labs: %w", err)
		}
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			dir.Close()
			return nil, fmt.Errorf("lock labs: %w", err)
		}
		// The last lab down removes the directory: a lock on a removed one locks nothing.
		held, err := dir.Stat()
		now, err2 := os.Stat(registryDir)
		if err == nil && err2 == nil && os.SameFile(held, now) {
			return func() { dir.Close() }, nil
		}
		dir.Close()
	}
}

// register links the lab to its state directory and gives it an index that no other lab has. The
// caller holds the lock.
func register(spec *topology.Spec) error {
	names, err := Names()
	if err != nil {
		return err
	}
	taken := make(map[int]bool)
	for _, name := range names {
		dir, err := registered(name)
		if err != nil {
			return err
		}
		if other, err := topology.Load(dir); err == nil && name != spec.Name {
			taken[other.Index] = true
		}
	}
	if spec.Index == 0 || taken[spec.Index] {
		spec.Index = 1
		for taken[spec.Index] {
			spec.Index++
		}
	}
	if !machine.NetnsDirMounted() {
		if err := os.WriteFile(netnsMark, nil, 0o644); err != nil {
			return err
		}
	}
	return os.Symlink(spec.StateDir, filepath.Join(registryDir, spec.Name))
}

// unregister forgets the lab, and what labs leave outside of their state directories when it was
// the last one. The caller holds the lock.
func unregister(name string) error {
	if err := os.Remove(filepath.Join(registryDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names, err := Names()
	if err != nil || len(names) > 0 {
		return err
	}
	if err := os.Remove(netnsMark); err == nil {
		if err := machine.ReleaseNetnsDir(); err != nil {
			return err
		}
	}
	for _, dir := range []string{registryDir, filepath.Dir(registryDir)} {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
	return nil
}
