package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// Usage is what the processes of a cgroup use.
type Usage struct {
	// CPU is the time used since the cgroup was made.
	CPU time.Duration
	// Memory is the working set in bytes: what is used without the files that the kernel can drop at
	// once.
	Memory int64
	// Processes counts threads, as the kernel's bound does.
	Processes int64
}

// PodUsage returns what a pod's containers use together. The error wraps fs.ErrNotExist when none
// of it runs.
func (r *Runtime) PodUsage(uid string) (Usage, error) { return CgroupUsage(r.podCgroup(uid)) }

// ContainerUsage returns what one attempt of a container uses, by its id.
func (r *Runtime) ContainerUsage(podUID, id string) (Usage, error) {
	return CgroupUsage(filepath.Join(r.podCgroup(podUID), id))
}

// AllUsage returns what all pods use together.
func (r *Runtime) AllUsage() (Usage, error) {
	return CgroupUsage(filepath.Join("/", r.cfg.CgroupParent))
}

// DiskUsage returns the bytes that a pod's containers have written to their own file systems, by
// the ids of their attempts.
func (r *Runtime) DiskUsage(ctx context.Context, uid string) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	s := r.client.SnapshotService(r.cfg.Snapshotter)
	var all []snapshots.Info
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all = append(all, info)
		return nil
	}, fmt.Sprintf("labels.%q==%q", labelPodUID, uid))
	if err != nil {
		return nil, fmt.Errorf("listing the file systems of pod %s: %w", uid, err)
	}
	out := map[string]int64{}
	for _, info := range all {
		u, err := s.Usage(ctx, info.Name)
		if err == nil && r.cfg.Snapshotter == copying {
			// What it holds begins as a copy of the image's.
			var image snapshots.Usage
			image, err = s.Usage(ctx, info.Parent)
			u.Size = max(u.Size-image.Size, 0)
		}
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the usage of file system %s: %w", info.Name, err)
		}
		out[info.Name] = u.Size
	}
	return out, nil
}

// CgroupUsage returns what the processes in a cgroup and those below it use, with cgroup v1 and v2.
// The error wraps fs.ErrNotExist when there is no such cgroup.
func CgroupUsage(cgroup string) (Usage, error) {
	u, err := usageV2(filepath.Join(cgroupRoot, cgroup))
	if errors.Is(err, fs.ErrNotExist) {
		u, err = usageV1(cgroup)
	}
	if err != nil {
		return Usage{}, fmt.Errorf("reading the usage of cgroup %s: %w", cgroup, err)
	}
	return u, nil
}

func usageV2(dir string) (Usage, error) {
	cpu, err := fields(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return Usage{}, err
	}
	u := Usage{CPU: time.Duration(cpu["usage_usec"]) * time.Microsecond}
	current, err := number(filepath.Join(dir, "memory.current"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The root has none: it is the whole machine.
		if u.Memory, err = MachineMemory(); err != nil {
			return Usage{}, err
		}
	case err != nil:
		return Usage{}, err
	default:
		stat, err := fields(filepath.Join(dir, "memory.stat"))
		if err != nil {
			return Usage{}, err
		}
		u.Memory = max(current-stat["inactive_file"], 0)
	}
	u.Processes, err = number(filepath.Join(dir, "pids.current"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Usage{}, err
	}
	return u, nil
}

func usageV1(cgroup string) (Usage, error) {
	cpu, err := number(filepath.Join(cgroupRoot, "cpuacct", cgroup, "cpuacct.usage"))
	if err != nil {
		return Usage{}, err
	}
	used, err := number(filepath.Join(cgroupRoot, "memory", cgroup, "memory.usage_in_bytes"))
	if err != nil {
		return Usage{}, err
	}
	stat, err := fields(filepath.Join(cgroupRoot, "memory", cgroup, "memory.stat"))
	if err != nil {
		return Usage{}, err
	}
	pids, err := number(filepath.Join(cgroupRoot, "pids", cgroup, "pids.current"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Usage{}, err
	}
	return Usage{CPU: time.Duration(cpu), Memory: max(used-stat["total_inactive_file"], 0), Processes: pids}, nil
}

// MachineMemory returns the bytes of the machine's memory that are in use and can't be dropped at
// once.
func MachineMemory() (int64, error) {
	info, err := fields("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	return (info["MemTotal:"] - info["MemAvailable:"]) << 10, nil
}

func number(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
}

// fields reads a file of a name and a number in each line; other lines are left out.
func fields(path string) (map[string]int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				out[f[0]] = n
			}
		}
	}
	return out, nil
}
