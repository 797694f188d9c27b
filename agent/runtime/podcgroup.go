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

// ErrInUse is returned for a limit below what is in use already. With cgroup v1 the kernel would
// refuse it; with v2 it would kill.
var ErrInUse = errors.New("current usage is higher")

// fits reports whether what a cgroup uses of memory is within a limit, 0 for none.
func fits(cgroup string, limit int64) error {
	if limit <= 0 {
		return nil
	}
	used, err := CgroupUsage(cgroup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && used.Memory > limit {
		err = fmt.Errorf("limiting memory to %d bytes: %w: %d bytes", limit, ErrInUse, used.Memory)
	}
	return err
}

// SetUpPod makes a pod's cgroup, which holds those of its containers, and bounds what they use
// together. It is idempotent, and changes the bounds of a pod that runs; the error wraps ErrInUse
// for a memory limit below what is in use.
func (r *Runtime) SetUpPod(uid string, bounds Resources, processes int64) error {
	err := fits(r.podCgroup(uid), bounds.MemoryLimit)
	if err == nil {
		err = r.setUpCgroup(r.podCgroup(uid), bounds, processes)
	}
	if err != nil {
		return fmt.Errorf("setting the limits of the cgroup of pod %s: %w", uid, err)
	}
	return nil
}

// PodLimits returns what a pod's cgroup limits CPU and memory to, 0 for no limit. The error wraps
// fs.ErrNotExist when the pod has none.
func (r *Runtime) PodLimits(uid string) (Resources, error) {
	cgroup := r.podCgroup(uid)
	limits, err := limitsV2(filepath.Join(cgroupRoot, cgroup))
	if errors.Is(err, fs.ErrNotExist) {
		limits, err = limitsV1(cgroup)
	}
	if err != nil {
		return Resources{}, fmt.Errorf("reading the limits of pod %s: %w", uid, err)
	}
	return limits, nil
}

func limitsV2(dir string) (Resources, error) {
	cpu, err := os.ReadFile(filepath.Join(dir, "cpu.max"))
	if err != nil {
		return Resources{}, err
	}
	memory, err := os.ReadFile(filepath.Join(dir, "memory.max"))
	if err != nil {
		return Resources{}, err
	}
	// "max" is no number, and no limit.
	var out Resources
	var quota, period int64
	if n, _ := fmt.Sscan(string(cpu), &quota, &period); n == 2 && period > 0 {
		out.MilliCPULimit = quota * 1000 / period
	}
	_, _ = fmt.Sscan(string(memory), &out.MemoryLimit)
	return out, nil
}

func limitsV1(cgroup string) (Resources, error) {
	quota, err := number(filepath.Join(cgroupRoot, "cpu", cgroup, "cpu.cfs_quota_us"))
	if err != nil {
		return Resources{}, err
	}
	memory, err := number(filepath.Join(cgroupRoot, "memory", cgroup, "memory.limit_in_bytes"))
	if err != nil {
		return Resources{}, err
	}
	out := Resources{MilliCPULimit: max(quota, 0) * 1000 / cfsPeriod}
	// Where there is no limit the kernel shows the most pages that it can count.
	if memory < 1<<62 {
		out.MemoryLimit = memory
	}
	return out, nil
}

// BoundPods bounds what all pods use together. It is idempotent, and may be called while pods run.
func (r *Runtime) BoundPods(bounds Resources, processes int64) error {
	if err := r.setUpCgroup(filepath.Join("/", r.cfg.CgroupParent), bounds, processes); err != nil {
		return fmt.Errorf("setting the limits of the cgroup of all pods: %w", err)
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

// controls reports whether a tree of cgroup v1 has one of the controllers.
func controls(root string, files []setting) bool {
	for _, f := range files {
		if f.v1 == filepath.Base(root) || strings.HasPrefix(filepath.Base(root), f.v1+",") {
			return true
		}
	}
	return false
}

// delegate turns the controllers on in all cgroups of v2 from the root down to the parent of the
// pods' ones.
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

// cpuQuota turns thousandths of a CPU into microseconds of each period. The kernel refuses less
// than a millisecond.
func cpuQuota(milli int64) int64 { return max(milli*cfsPeriod/1000, 1000) }
