package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// cgroupRoot is where the kernel's cgroup trees are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// podCgroup is the cgroup that holds those of a pod's containers.
func (r *Runtime) podCgroup(uid string) string {
	return filepath.Join("/", r.cfg.CgroupParent, "pod"+uid)
}

// hierarchies returns the roots of the mounted cgroup trees: one for cgroup v2, one for each
// controller otherwise.
func hierarchies() ([]string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return nil, fmt.Errorf("inspecting %s: %w", cgroupRoot, err)
	}
	if int64(st.Type) == unix.CGROUP2_SUPER_MAGIC {
		return []string{cgroupRoot}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(cgroupRoot, e.Name()))
		}
	}
	return out, nil
}

// unifiedCgroups reports whether the machine has cgroup v2 alone.
func unifiedCgroups() bool {
	roots, err := hierarchies()
	return err == nil && len(roots) == 1
}

// OOMKilled reports whether the kernel killed a process of the container because the container had
// used up its memory. It is known until the container is removed.
func (r *Runtime) OOMKilled(s Status) bool {
	if s.cgroup == "" {
		return false
	}
	for _, file := range []string{
		filepath.Join(cgroupRoot, s.cgroup, "memory.events"),
		filepath.Join(cgroupRoot, "memory", s.cgroup, "memory.oom_control"),
	} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if n, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
				kills, err := strconv.Atoi(n)
				return err == nil && kills > 0
			}
		}
	}
	return false
}

func (r *Runtime) removePodCgroup(uid string) error {
	roots, err := hierarchies()
	if err != nil {
		return fmt.Errorf("removing the cgroup of pod %s: %w", uid, err)
	}
	var errs []error
	for _, root := range roots {
		dir := filepath.Join(root, r.podCgroup(uid))
		// runc may have left an empty child when it was killed in its work.
		children, _ := os.ReadDir(dir)
		for _, c := range children {
			if c.IsDir() {
				errs = append(errs, rmdir(filepath.Join(dir, c.Name())))
			}
		}
		errs = append(errs, rmdir(dir))
		failpoint.Hit("cgroup-removed")
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the cgroup of pod %s: %w", uid, err)
	}
	return nil
}

func rmdir(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
