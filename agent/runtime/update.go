package runtime

import (
	"context"
	"fmt"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes the bounds of a running container. Limits that are 0 stay as they are. The error
// wraps ErrInUse for a memory limit below what is in use.
func (r *Runtime) Update(ctx context.Context, id string, bounds Resources) error {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	shares := cpuShares(bounds.MilliCPURequest)
	cpu := &specs.LinuxCPU{Shares: &shares}
	if bounds.MilliCPULimit > 0 {
		period, quota := uint64(cfsPeriod), cpuQuota(bounds.MilliCPULimit)
		cpu.Period, cpu.Quota = &period, &quota
	}
	resources := &specs.LinuxResources{CPU: cpu}
	if bounds.MemoryLimit > 0 {
		resources.Memory = &specs.LinuxMemory{Limit: &bounds.MemoryLimit}
	}
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return fmt.Errorf("updating the limits of container %s: %w", id, err)
	}
	labels, err := c.Labels(ctx)
	if err != nil {
		return fmt.Errorf("updating the limits of container %s: %w", id, err)
	}
	if err := fits(labels[labelCgroup], bounds.MemoryLimit); err != nil {
		return fmt.Errorf("updating the limits of container %s: %w", id, err)
	}
	task, err := c.Task(ctx, nil)
	if err != nil {
		return fmt.Errorf("updating the limits of container %s: %w", id, err)
	}
	if err := task.Update(ctx, containerd.WithResources(resources)); err != nil {
		return fmt.Errorf("updating the limits of container %s: %w", id, err)
	}
	return nil
}
