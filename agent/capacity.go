package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/runtime"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Resources that a node has and keeps some of.
const (
	resourceCPU    = "cpu"
	resourceMemory = "memory"
	resourceDisk   = "ephemeral-storage"
	resourcePID    = "pid"
)

// parseAmounts reads a list of resource=quantity; CPUs are in thousandths.
func parseAmounts(list []string) (map[string]int64, error) {
	out := map[string]int64{}
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if !ok || !slices.Contains([]string{resourceCPU, resourceMemory, resourceDisk, resourcePID}, name) {
			return nil, fmt.Errorf("invalid %q: want RESOURCE=QUANTITY with RESOURCE one of cpu, memory, ephemeral-storage, pid", text)
		}
		q, err := resource.ParseQuantity(value)
		if err != nil || q.Sign() < 0 {
			return nil, fmt.Errorf("%q is not a quantity", value)
		}
		out[name] = q.Value()
		if name == resourceCPU {
			out[name] = q.MilliValue()
		}
	}
	return out, nil
}

// thresholds reads when to evict.
func (c *Config) thresholds() ([]eviction.Threshold, error) {
	e := c.Eviction
	return eviction.Parse(eviction.Settings{Hard: e.Hard, Soft: e.Soft, SoftGrace: e.SoftGracePeriod, MinimumReclaim: e.MinimumReclaim})
}

// configure replaces what the machine has by what the configuration says the node has.
func (m *machine) configure(c *Config) error {
	has, err1 := parseAmounts(c.Capacity)
	system, err2 := parseAmounts(c.SystemReserved)
	kube, err3 := parseAmounts(c.KubeReserved)
	thresholds, err4 := c.thresholds()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	m.processes = machineProcesses()
	m.shared, m.reserved, m.evictAt = map[string]bool{}, map[string]int64{}, map[string]int64{}
	for name, at := range map[string]*int64{
		resourceCPU: &m.milliCPU, resourceMemory: &m.memoryBytes, resourceDisk: &m.diskBytes, resourcePID: &m.processes,
	} {
		if n, ok := has[name]; ok {
			*at, m.shared[name] = n, true
		}
		m.reserved[name] = system[name] + kube[name]
	}
	for _, t := range thresholds {
		switch {
		case t.Grace > 0:
		case t.Signal == eviction.MemoryAvailable:
			m.evictAt[resourceMemory] = t.Least.Of(m.memoryBytes)
		case t.Signal == eviction.NodeFSAvailable:
			m.evictAt[resourceDisk] = t.Least.Of(m.diskBytes)
		}
	}
	return nil
}

// allocatable is what pods may ask for: the capacity without what is reserved, and without the
// eviction thresholds.
func (m *machine) allocatable(maxPods int64) map[string]*metav1.Quantity {
	left := func(name string, of int64) int64 { return max(of-m.reserved[name]-m.evictAt[name], 0) }
	return capacity(left(resourceCPU, m.milliCPU), left(resourceMemory, m.memoryBytes), left(resourceDisk, m.diskBytes), maxPods)
}

// grantable is allocatable, as pods' requests are reckoned.
func (m *machine) grantable() runtime.Resources {
	return runtime.Resources{
		MilliCPURequest: max(m.milliCPU-m.reserved[resourceCPU], 0),
		MemoryRequest:   max(m.memoryBytes-m.reserved[resourceMemory]-m.evictAt[resourceMemory], 0),
	}
}

// bounds is what all pods together get from the kernel: the capacity without what is reserved. It
// is more than is allocatable, so that eviction comes before the kernel's killer does.
func (m *machine) bounds() (bounds runtime.Resources, processes int64) {
	bounds = runtime.Resources{MilliCPURequest: max(m.milliCPU-m.reserved[resourceCPU], 0)}
	if m.shared[resourceMemory] || m.reserved[resourceMemory] > 0 {
		bounds.MemoryLimit = max(m.memoryBytes-m.reserved[resourceMemory], 1)
	}
	if m.shared[resourcePID] || m.reserved[resourcePID] > 0 {
		processes = max(m.processes-m.reserved[resourcePID], 1)
	}
	return bounds, processes
}

// machineProcesses is how many processes and threads the machine can have.
func machineProcesses() int64 {
	least := int64(0)
	for _, file := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		n, err := strconv.ParseInt(firstLine(file), 10, 64)
		if err == nil && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

// runningProcesses is how many the machine has now.
func runningProcesses() (int64, error) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 4 {
		return 0, fmt.Errorf("unexpected content of /proc/loadavg: %q", b)
	}
	_, all, _ := strings.Cut(f[3], "/")
	return strconv.ParseInt(all, 10, 64)
}

// observer returns the available resources of the node: of the machine, or of the node's share of
// it.
type observer struct {
	machine  machine
	runtime  *runtime.Runtime
	set      *pods.Set
	stateDir string
}

func (o observer) observe(ctx context.Context) (map[eviction.Signal]eviction.Observation, error) {
	out := map[eviction.Signal]eviction.Observation{}
	all, err := o.runtime.AllUsage()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	m := o.machine
	memory := eviction.Observation{Capacity: m.memoryBytes, Available: m.memoryBytes - m.reserved[resourceMemory] - all.Memory}
	if !m.shared[resourceMemory] {
		whole, err := runtime.MachineMemory()
		if err != nil {
			return nil, err
		}
		memory.Available = m.memoryBytes - whole
	}
	out[eviction.MemoryAvailable] = memory
	processes := eviction.Observation{Capacity: m.processes, Available: m.processes - m.reserved[resourcePID] - all.Processes}
	if !m.shared[resourcePID] {
		n, err := runningProcesses()
		if err != nil {
			return nil, err
		}
		processes.Available = m.processes - n
	}
	out[eviction.PIDAvailable] = processes
	own, err := images.DiskAt(o.stateDir)
	if err != nil {
		return nil, err
	}
	imagesDisk, err := o.runtime.Images().Disk(ctx)
	if err != nil {
		return nil, err
	}
	disk := eviction.Observation{Capacity: own.Capacity, Available: own.Available}
	if m.shared[resourceDisk] {
		disk = eviction.Observation{Capacity: m.diskBytes, Available: m.diskBytes - m.reserved[resourceDisk]}
		for _, p := range o.set.Active() {
			used, err := o.set.DiskUsage(ctx, p.GetMetadata().GetUid())
			if err != nil {
				return nil, err
			}
			disk.Available -= used
		}
	}
	out[eviction.NodeFSAvailable] = disk
	out[eviction.ImageFSAvailable] = eviction.Observation{Capacity: imagesDisk.Capacity, Available: imagesDisk.Available}
	if own.Inodes > 0 {
		out[eviction.NodeFSInodesFree] = eviction.Observation{Capacity: own.Inodes, Available: own.FreeInodes}
	}
	if imagesDisk.Inodes > 0 {
		out[eviction.ImageFSInodesFree] = eviction.Observation{Capacity: imagesDisk.Inodes, Available: imagesDisk.FreeInodes}
	}
	return out, nil
}

// pods returns the running pods with their usage of a signal's resource.
func (o observer) pods(ctx context.Context, s eviction.Signal) ([]eviction.Pod, error) {
	var out []eviction.Pod
	for _, p := range o.set.Active() {
		uid := p.GetMetadata().GetUid()
		var used int64
		switch s {
		case eviction.MemoryAvailable, eviction.PIDAvailable:
			u, err := o.runtime.PodUsage(uid)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if used = u.Memory; s == eviction.PIDAvailable {
				used = u.Processes
			}
		default:
			var err error
			if used, err = o.set.DiskUsage(ctx, uid); err != nil {
				return nil, err
			}
		}
		out = append(out, eviction.Pod{Pod: p, Used: used})
	}
	return out, nil
}

// setPressures changes the node's pressure conditions.
func (r *registrar) setPressures(p map[eviction.Pressure]bool) {
	r.mu.Lock()
	r.pressures = maps.Clone(p)
	r.mu.Unlock()
	r.nudge()
}
