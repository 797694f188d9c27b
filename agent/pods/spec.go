package pods

import (
	"context"
	"os"
	"path/filepath"

	"github.com/xebec-project/xebec/agent/pods/environment"
	"github.com/xebec-project/xebec/agent/pods/etc"
	"github.com/xebec-project/xebec/agent/pods/mounts"
	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/pods/security"
	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// containerConfig is the coming attempt as the runtime wants it. The error wraps objects.ErrConfig
// when the spec refers to what does not exist.
func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *container) (runtime.ContainerConfig, error) {
	spec := c.spec
	env, values, err := environment.Build(
		ctx,
		spec,
		w.surroundings(pod),
		environment.Links(ctx, w.cfg.Services, pod),
		objects.Cache{Cluster: w.cfg.Cluster, Dir: w.dir, Namespace: w.namespace},
	)
	if err != nil {
		return runtime.ContainerConfig{}, err
	}
	if err := w.makeVolumes(ctx, pod); err != nil {
		return runtime.ContainerConfig{}, err
	}
	message := w.dir.Message(spec.GetName(), c.rec.Attempt)
	if err := os.MkdirAll(filepath.Dir(message), 0o711); err != nil {
		return runtime.ContainerConfig{}, err
	}
	if err := os.WriteFile(message, nil, 0o666); err != nil {
		return runtime.ContainerConfig{}, err
	}
	if err := os.Chmod(message, 0o666); err != nil {
		return runtime.ContainerConfig{}, err
	}
	mounted, err := mounts.Mounter{
		Dir:           w.dir,
		Volumes:       w.volumes,
		ReadOnlyBelow: w.cfg.Runtime.ReadOnlyBelow,
	}.Mounts(
		pod,
		spec,
		values,
		message,
	)
	if err != nil {
		mounts.Close(mounted)
		return runtime.ContainerConfig{}, err
	}
	pid, entered, err := w.processNamespace(ctx, pod, c)
	if err != nil {
		mounts.Close(mounted)
		return runtime.ContainerConfig{}, err
	}
	c.entered = func() {
		entered()
		mounts.Close(mounted)
	}
	m, granted := pod.GetMetadata(), w.allotted(pod)
	return runtime.ContainerConfig{
		PodUID: w.uid, PodNamespace: m.GetNamespace(), PodName: m.GetName(), Name: spec.GetName(), Attempt: c.rec.Attempt,
		Image: c.image.Name, Handler: w.handler,
		Command: environment.ExpandAll(spec.GetCommand(), values), Args: environment.ExpandAll(spec.GetArgs(), values),
		Env: append([]string{"HOSTNAME=" + etc.Hostname(pod, w.cfg.ClusterDomain)}, env...), WorkingDir: spec.GetWorkingDir(), Mounts: mounted,
		Sandbox: w.sandbox, HostPID: pod.GetSpec().GetHostPid(), PIDNamespace: pid, TTY: spec.GetTty(),
		Stdin: spec.GetStdin(), StdinOnce: spec.GetStdinOnce(), StreamDir: w.dir.Streams(spec.GetName()),
		Resources: resources.Of(
			granted,
			resources.Find(granted, spec.GetName()),
			w.cfg.MemoryBytes,
		), Security: security.Of(pod, spec, w.cfg.SeccompDir),
		LogPath: w.dir.Log(spec.GetName(), c.rec.Attempt),
	}, nil
}

func (w *worker) surroundings(pod *corev1.Pod) environment.Surroundings {
	return environment.Surroundings{
		Pod: pod, PodIP: w.ip.String(), HostIP: w.cfg.HostIP.String(), PodIPs: w.cfg.both(w.ip), HostIPs: w.cfg.both(w.cfg.HostIP),
		NodeName: w.cfg.NodeName,
		MilliCPU: w.cfg.MilliCPU, MemoryBytes: w.cfg.MemoryBytes, VolumeDir: w.dir.Volume,
	}
}
