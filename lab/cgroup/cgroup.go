// Package cgroup makes, fills, kills and removes subtrees that exist at the same path in every
// mounted cgroup hierarchy: cgroup v2 alone, or the v1 controllers with v2 beside them (hybrid
// mode).
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Hierarchies are the mount points of the machine's cgroup hierarchies. The zero value is not
// usable; see Find.
type Hierarchies struct {
	// Unified is where cgroup v2 is mounted.
	Unified string
	// Legacy are the mount points of the v1 hierarchies, empty on machines with cgroup v2 alone.
	Legacy []string
}

// delegated are the v2 controllers that containers may need.
var delegated = []string{"cpu", "cpuset", "io", "memory", "pids"}

// Find reads the cgroup mounts of the calling process. A machine without cgroup v2 is an error:
// service routing hooks into it.
func Find() (Hierarchies, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return Hierarchies{}, fmt.Errorf("read mounts: %w", err)
	}
	var h Hierarchies
	for _, m := range mounts {
		switch {
		case m.Root != "/" || !strings.HasPrefix(m.Mountpoint, "/sys/fs/cgroup"):
		case m.FSType == "cgroup2":
			h.Unified = m.Mountpoint
		case !slices.Contains(h.Legacy, m.Mountpoint):
			h.Legacy = append(h.Legacy, m.Mountpoint)
		}
	}
	if h.Unified == "" {
		return Hierarchies{}, errors.New(
			"cgroup v2 is not mounted: mount it by mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
		)
	}
	return h, nil
}

// all returns the directories of path in every hierarchy.
func (h Hierarchies) all(path string) []string {
	dirs := []string{filepath.Join(h.Unified, path)}
	for _, l := range h.Legacy {
		dirs = append(dirs, filepath.Join(l, path))
	}
	return dirs
}

// Create makes path and its parents in every hierarchy. Cgroups that exist already are no error.
// With delegate, the v2 controllers that containers need are enabled for the children of path and
// of its parents, which must then hold no process themselves.
func (h Hierarchies) Create(path string, delegate bool) error {
	for _, dir := range h.all(path) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create cgroup: %w", err)
		}
	}
	for _, l := range h.Legacy {
		if err := inheritCPUSet(l, path); err != nil {
			return err
		}
	}
	if !delegate {
		return nil
	}
	for dir := range prefixes(path) {
		if err := enable(filepath.Join(h.Unified, dir)); err != nil {
			return err
		}
	}
	return nil
}

// Weigh gives path so many times the processor time that its siblings get when there is not enough
// for all.
func (h Hierarchies) Weigh(path string, times int) error {
	files := map[string]int{filepath.Join(h.Unified, path, "cpu.weight"): 100 * times}
	for _, l := range h.Legacy {
		files[filepath.Join(l, path, "cpu.shares")] = 1024 * times
	}
	for file, weight := range files {
		// The controller is in one of the hierarchies.
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(weight)), 0o644); err != nil {
			return fmt.Errorf("set cgroup weight: %w", err)
		}
	}
	return nil
}

// prefixes yields "", "a", "a/b" for the path "a/b".
func prefixes(path string) func(func(string) bool) {
	return func(yield func(string) bool) {
		if !yield("") {
			return
		}
		done := ""
		for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			done = filepath.Join(done, part)
			if !yield(done) {
				return
			}
		}
	}
}

func enable(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	var want []string
	for c := range strings.FieldsSeq(string(have)) {
		if slices.Contains(delegated, c) {
			want = append(want, "+"+c)
		}
	}
	if len(want) == 0 {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(strings.Join(want, " ")), 0o644); err != nil {
		return fmt.Errorf("enable cgroup controllers: %w", err)
	}
	return nil
}

// inheritCPUSet copies the CPUs and memory nodes downwards: a new v1 cpuset is empty and takes no
// process.
func inheritCPUSet(mount, path string) error {
	if _, err := os.Stat(filepath.Join(mount, path, "cpuset.cpus")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	parent := ""
	for dir := range prefixes(path) {
		if dir == "" {
			continue
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			own, err := os.ReadFile(filepath.Join(mount, dir, file))
			if err != nil {
				return fmt.Errorf("read cpuset: %w", err)
			}
			if strings.TrimSpace(string(own)) != "" {
				continue
			}
			inherited, err := os.ReadFile(filepath.Join(mount, parent, file))
			if err != nil {
				return fmt.Errorf("read cpuset: %w", err)
			}
			if err := os.WriteFile(filepath.Join(mount, dir, file), inherited, 0o644); err != nil {
				return fmt.Errorf("set cpuset: %w", err)
			}
		}
		parent = dir
	}
	return nil
}

// JoinThread moves the calling thread, and with it every process forked from it, into path in the
// v1 hierarchies. The caller has locked its goroutine to the thread and lets the thread die. For
// v2, whose cgroups hold whole processes, fork with the descriptor from Open.
func (h Hierarchies) JoinThread(path string) error {
	for _, l := range h.Legacy {
		if err := os.WriteFile(filepath.Join(l, path, "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// Open opens the v2 directory of path, for syscall.SysProcAttr.CgroupFD. The caller closes it.
func (h Hierarchies) Open(path string) (*os.File, error) {
	return os.Open(filepath.Join(h.Unified, path))
}

// Exists says whether path is present in any hierarchy.
func (h Hierarchies) Exists(path string) bool {
	return slices.ContainsFunc(h.all(path), func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	})
}

// Pids returns the processes in path and below, in any hierarchy, without the caller. A path that
// does not exist has none.
func (h Hierarchies) Pids(path string) ([]int, error) {
	self := os.Getpid()
	var pids []int
	for _, root := range h.all(path) {
		err := walk(root, func(dir string) error {
			procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				return ignoreGone(err)
			}
			for field := range strings.FieldsSeq(string(procs)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 && pid != self {
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list cgroup %s: %w", path, err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Kill sends SIGKILL to every process in path and below and returns once none is left. The caller
// itself is spared even when one of its threads is inside.
func (h Hierarchies) Kill(ctx context.Context, path string) error {
	for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
		pids, err := h.Pids(path)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		// cgroup.kill is atomic against forks; the signals reach what is in v1 hierarchies only.
		err = os.WriteFile(filepath.Join(h.Unified, path, "cgroup.kill"), []byte("1"), 0o644)
		if err != nil && ignoreGone(err) != nil {
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d of cgroup %s: %w", pid, path, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cgroup %s still holds processes %v: %w", path, pids, ctx.Err())
		case <-time.After(delay):
		}
	}
}

// Remove deletes path and everything below in every hierarchy. It waits, until ctx ends, for
// processes that are still leaving. A path that does not exist is no error.
func (h Hierarchies) Remove(ctx context.Context, path string) error {
	if strings.Trim(path, "/") == "" {
		return errors.New("refusing to remove the root cgroup")
	}
	for _, root := range h.all(path) {
		for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
			err := removeTree(root)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove cgroup: %w", err)
			case <-time.After(delay):
			}
		}
	}
	return nil
}

func removeTree(root string) error {
	var dirs []string
	if err := walk(root, func(dir string) error {
		dirs = append(dirs, dir)
		return nil
	}); err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
	return nil
}

// walk calls visit for root and each cgroup below it, parents first. What vanishes meanwhile is
// skipped.
func walk(root string, visit func(dir string) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		if !entry.IsDir() {
			return nil
		}
		return visit(path)
	})
}

// ignoreGone drops the errors of a cgroup removed under our feet.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
