package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Place moves a process that is no container's into a cgroup of the given name below the pod's,
// where it counts as the pod's. SetUpPod comes before.
func (r *Runtime) Place(uid, name string, pid int) error {
	dirs, err := r.placedDirs(uid, "")
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		return fmt.Errorf("pod %s has no cgroup", uid)
	}
	for _, dir := range dirs {
		dir = filepath.Join(dir, name)
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		}
		if err != nil {
			return fmt.Errorf("placing process %d in the cgroup of pod %s: %w", pid, uid, err)
		}
	}
	return nil
}

// Placed returns the processes that Place put there and that still run.
func (r *Runtime) Placed(uid, name string) ([]int, error) {
	dirs, err := r.placedDirs(uid, name)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("listing the processes of pod %s: %w", uid, err)
		}
		for f := range strings.FieldsSeq(string(b)) {
			// 0 stands for one that this process can't see.
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 && !slices.Contains(out, pid) {
				out = append(out, pid)
			}
		}
	}
	return out, nil
}

// placedDirs returns the directories of a cgroup below the pod's in all trees in which SetUpPod
// made the pod's.
func (r *Runtime) placedDirs(uid, name string) ([]string, error) {
	roots, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var out []string
	files := podFiles(Resources{}, 0)
	for _, root := range roots {
		if len(roots) > 1 && !controls(root, files) {
			continue
		}
		dir := filepath.Join(root, r.podCgroup(uid), name)
		if _, err := os.Stat(dir); err == nil {
			out = append(out, dir)
		}
	}
	return out, nil
}
