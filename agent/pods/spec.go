package pods

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// containerConfig is the coming attempt as the runtime wants it. The error wraps errConfig when the spec refers to what
// does not exist.
func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *container) (runtime.ContainerConfig, error) {
	spec := c.spec
	env, values, err := environment(ctx, spec, w.surroundings(pod), podObjects{w})
	if err != nil {
		return runtime.ContainerConfig{}, err
	}
	if err := w.makeVolumes(ctx, pod); err != nil {
		return runtime.ContainerConfig{}, err
	}
	message := w.dir.message(spec.GetName(), c.rec.Attempt)
	if err := os.MkdirAll(filepath.Dir(message), 0o711); err != nil {
		return runtime.ContainerConfig{}, err
	}
	if err := os.WriteFile(message, nil, 0o666); err != nil {
		return runtime.ContainerConfig{}, err
	}
	if err := os.Chmod(message, 0o666); err != nil {
		return runtime.ContainerConfig{}, err
	}
	mounts, err := mounts(pod, spec, w.dir, w.volumes, values, message)
	if err != nil {
		return runtime.ContainerConfig{}, err
	}
	m := pod.GetMetadata()
	return runtime.ContainerConfig{
		PodUID: w.uid, PodNamespace: m.GetNamespace(), PodName: m.GetName(), Name: spec.GetName(), Attempt: c.rec.Attempt,
		Image: c.image.Name, Command: expandAll(spec.GetCommand(), values), Args: expandAll(spec.GetArgs(), values),
		Env: append([]string{"HOSTNAME=" + hostname(pod)}, env...), WorkingDir: spec.GetWorkingDir(), Mounts: mounts,
		Sandbox: w.sandbox, HostPID: pod.GetSpec().GetHostPid(), TTY: spec.GetTty(),
		Resources: resources(pod, spec, w.cfg.MemoryBytes), Security: security(pod, spec),
		LogPath: w.dir.log(spec.GetName(), c.rec.Attempt),
	}, nil
}

func (w *worker) surroundings(pod *corev1.Pod) surroundings {
	return surroundings{
		pod: pod, podIP: w.ip.String(), hostIP: w.cfg.HostIP.String(), nodeName: w.cfg.NodeName,
		milliCPU: w.cfg.MilliCPU, memoryBytes: w.cfg.MemoryBytes,
	}
}

func resources(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) runtime.Resources {
	limits, requests := c.GetResources().GetLimits(), c.GetResources().GetRequests()
	cpu, memory := requests["cpu"], requests["memory"]
	if cpu == nil {
		cpu = limits["cpu"]
	}
	if memory == nil {
		memory = limits["memory"]
	}
	request, limit, mem := quantity(cpu), quantity(limits["cpu"]), quantity(limits["memory"])
	return runtime.Resources{
		MilliCPURequest: request.MilliValue(), MilliCPULimit: limit.MilliValue(), MemoryLimit: mem.Value(),
		OOMScoreAdj: oomScoreAdj(kind.PodQOS(pod.GetSpec()), memory, nodeMemory),
	}
}

// security joins the pod's and the container's wishes; the container's go first.
func security(pod *corev1.Pod, c *corev1.Container) runtime.Security {
	var out runtime.Security
	if p := pod.GetSpec().GetSecurityContext(); p != nil {
		out = runtime.Security{
			User: p.RunAsUser, Group: p.RunAsGroup, Groups: p.GetSupplementalGroups(), NonRoot: p.GetRunAsNonRoot(),
			DefaultSeccomp: p.GetSeccompProfile().GetType() == "RuntimeDefault",
		}
		if p.FsGroup != nil {
			out.Groups = append(slices.Clone(out.Groups), p.GetFsGroup())
		}
	}
	s := c.GetSecurityContext()
	if s == nil {
		return out
	}
	if s.RunAsUser != nil {
		out.User = s.RunAsUser
	}
	if s.RunAsGroup != nil {
		out.Group = s.RunAsGroup
	}
	if s.RunAsNonRoot != nil {
		out.NonRoot = s.GetRunAsNonRoot()
	}
	if s.GetSeccompProfile() != nil {
		out.DefaultSeccomp = s.GetSeccompProfile().GetType() == "RuntimeDefault"
	}
	out.AddCapabilities, out.DropCapabilities = s.GetCapabilities().GetAdd(), s.GetCapabilities().GetDrop()
	out.Privileged, out.ReadOnlyRoot = s.GetPrivileged(), s.GetReadOnlyRootFilesystem()
	out.NoNewPrivileges = s.AllowPrivilegeEscalation != nil && !s.GetAllowPrivilegeEscalation()
	return out
}
