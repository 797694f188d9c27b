package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// SetUpPod makes a pod's cgroup, which holds those of its containers, and bounds what they use together. It is
// idempotent, and changes the bounds of a pod that runs.
func (r *Runtime) SetUpPod(uid string, bounds Resources, processes int64) error {
	if err := r.setUpCgroup(r.podCgroup(uid), bounds, processes); err != nil {
		return fmt.Errorf("bounding the cgroup of pod %s: %w", uid, err)
	}
	return nil
}

// BoundPods bounds what all pods use together. It is idempotent, and may be called while pods run.
func (r *Runtime) BoundPods(bounds Resources, processes int64) error {
	if err := r.setUpCgroup(filepath.Join("/", r.cfg.CgroupParent), bounds, processes); err != nil {
		return fmt.Errorf("bounding the cgroup of all pods: %w", err)
	}
	return nil
}

func (r *Runtime) setUpCgroup(cgroup string, bounds Resources, processes int64) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	files := podFiles(bounds, processes)
	var errs []error
	for _, root := range roots {
		dir := filepath.Join(root, cgroup)
		if len(roots) == 1 {
			if err := delegate(root, r.cfg.CgroupParent); err != nil {
				return err
			}
		} else if !controls(root, files) {
			// A tree with none of the controllers is left to runc, which knows which of them it needs.
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		failpoint.Hit("cgroup-made")
		for _, f := range files {
			err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.value), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				errs = append(errs, fmt.Errorf("%s to %s: %w", f.name, f.value, err))
			}
		}
	}
	return errors.Join(errs...)
}

// controllers are those whose files podFiles writes.
var controllers = []string{"cpu", "memory", "pids"}

// controls tells whether a tree of cgroup v1 has one of the controllers.
func controls(root string, files []setting) bool {
	for _, f := range files {
		if f.v1 == filepath.Base(root) || strings.HasPrefix(filepath.Base(root), f.v1+",") {
			return true
		}
	}
	return false
}

// delegate turns the controllers on in all cgroups of v2 from the root down to the parent of the pods' ones.
func delegate(root, parent string) error {
	dir := root
	for _, part := range append([]string{""}, strings.Split(strings.Trim(parent, "/"), "/")...) {
		dir = filepath.Join(dir, part)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, c := range controllers {
			// One that the machine does not have can't be turned on; what it would bound is not bounded.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		}
	}
	return nil
}

// setting is a file of a cgroup. Of the two versions' files only one exists.
type setting struct{ v1, name, value string }

func podFiles(r Resources, processes int64) []setting {
	shares := cpuShares(r.MilliCPURequest)
	// The scale of v2 goes from 1 to 10000, that of v1 from 2 to 262144.
	weight := 1 + (shares-2)*9999/262142
	quota, most := "-1", "max"
	if r.MilliCPULimit > 0 {
		quota = strconv.FormatInt(cpuQuota(r.MilliCPULimit), 10)
		most = quota
	}
	memory, memoryMost := "-1", "max"
	if r.MemoryLimit > 0 {
		memory = strconv.FormatInt(r.MemoryLimit, 10)
		memoryMost = memory
	}
	pids := "max"
	if processes > 0 {
		pids = strconv.FormatInt(processes, 10)
	}
	return []setting{
		{"cpu", "cpu.shares", strconv.FormatUint(shares, 10)},
		{"cpu", "cpu.cfs_period_us", strconv.Itoa(cfsPeriod)},
		{"cpu", "cpu.cfs_quota_us", quota},
		{"cpu", "cpu.weight", strconv.FormatUint(weight, 10)},
		{"cpu", "cpu.max", most + " " + strconv.Itoa(cfsPeriod)},
		{"memory", "memory.limit_in_bytes", memory},
		{"memory", "memory.max", memoryMost},
		{"pids", "pids.max", pids},
	}
}

// cpuQuota turns thousandths of a CPU into microseconds of each period. The kernel refuses less than a millisecond.
func cpuQuota(milli int64) int64 { return max(milli*cfsPeriod/1000, 1000) }
