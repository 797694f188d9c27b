package pods

import (
	"context"
	"os"
	"path/filepath"

	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// containerConfig is the coming attempt as the runtime wants it. The error wraps errConfig when the spec refers to what
// does not exist.
func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *container) (runtime.ContainerConfig, error) {
	spec := c.spec
	env, values, err := environment(ctx, spec, w.surroundings(pod), links(ctx, w.cfg.Services, pod), podObjects{w.cfg.Cluster, w.dir, w.namespace})
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
	mounts, err := mounter{w.dir, w.volumes, w.cfg.Runtime.ReadOnlyBelow}.mounts(pod, spec, values, message)
	if err != nil {
		closeFiles(mounts)
		return runtime.ContainerConfig{}, err
	}
	pid, entered, err := w.processNamespace(ctx, pod, c)
	if err != nil {
		closeFiles(mounts)
		return runtime.ContainerConfig{}, err
	}
	c.entered = func() {
		entered()
		closeFiles(mounts)
	}
	m, granted := pod.GetMetadata(), w.allotted(pod)
	return runtime.ContainerConfig{
		PodUID: w.uid, PodNamespace: m.GetNamespace(), PodName: m.GetName(), Name: spec.GetName(), Attempt: c.rec.Attempt,
		Image: c.image.Name, Command: expandAll(spec.GetCommand(), values), Args: expandAll(spec.GetArgs(), values),
		Env: append([]string{"HOSTNAME=" + hostname(pod, w.cfg.ClusterDomain)}, env...), WorkingDir: spec.GetWorkingDir(), Mounts: mounts,
		Sandbox: w.sandbox, HostPID: pod.GetSpec().GetHostPid(), PIDNamespace: pid, TTY: spec.GetTty(),
		Stdin: spec.GetStdin(), StdinOnce: spec.GetStdinOnce(), StreamDir: w.dir.streams(spec.GetName()),
		Resources: resources(granted, find(granted, spec.GetName()), w.cfg.MemoryBytes), Security: security(pod, spec, w.cfg.SeccompDir),
		LogPath: w.dir.log(spec.GetName(), c.rec.Attempt),
	}, nil
}

func (w *worker) surroundings(pod *corev1.Pod) surroundings {
	return surroundings{
		pod: pod, podIP: w.ip.String(), hostIP: w.cfg.HostIP.String(), podIPs: w.cfg.both(w.ip), hostIPs: w.cfg.both(w.cfg.HostIP), nodeName: w.cfg.NodeName,
		milliCPU: w.cfg.MilliCPU, memoryBytes: w.cfg.MemoryBytes,
	}
}
