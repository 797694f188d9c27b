package pods

import (
	"context"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// containerConfig is the coming attempt as the runtime wants it. The error wraps errConfig when the spec refers to what
// does not exist.
func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *container) (runtime.ContainerConfig, error) {
	spec := c.spec
	env, values, err := environment(ctx, spec, w.surroundings(pod), w.links(ctx, pod), podObjects{w})
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
	mounts, err := w.mounts(pod, spec, values, message)
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

func resources(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) runtime.Resources {
	limits, requests := c.GetResources().GetLimits(), c.GetResources().GetRequests()
	cpu, memory := requests["cpu"], requests["memory"]
	if cpu == nil {
		cpu = limits["cpu"]
	}
	if memory == nil {
		memory = limits["memory"]
	}
	request, asked := quantity(cpu), quantity(memory)
	limit, mem := quantity(limitOf(pod, c, "cpu")), quantity(limitOf(pod, c, "memory"))
	return runtime.Resources{
		MilliCPURequest: request.MilliValue(), MilliCPULimit: limit.MilliValue(), MemoryLimit: mem.Value(), MemoryRequest: asked.Value(),
		OOMScoreAdj: oomScoreAdj(kind.PodQOS(pod.GetSpec()), asked.Value()+spareMemory(pod), nodeMemory),
	}
}

// limitOf is what a container may use of a resource: what it says, or else all that the pod as a whole may. It is nil when
// neither says anything.
func limitOf(pod *corev1.Pod, c *corev1.Container, name string) *metav1.Quantity {
	if own := c.GetResources().GetLimits()[name]; own != nil {
		return own
	}
	return pod.GetSpec().GetResources().GetLimits()[name]
}

// spareMemory is each container's share of the memory that the pod as a whole asks for beyond what its containers do.
func spareMemory(pod *corev1.Pod) int64 {
	spec := pod.GetSpec()
	whole, n := quantity(spec.GetResources().GetRequests()["memory"]), int64(len(spec.GetContainers()))
	spare := whole.Value()
	for _, c := range spec.GetInitContainers() {
		if sidecar(c) {
			q := quantity(c.GetResources().GetRequests()["memory"])
			spare, n = spare-q.Value(), n+1
		}
	}
	for _, c := range spec.GetContainers() {
		q := quantity(c.GetResources().GetRequests()["memory"])
		spare -= q.Value()
	}
	if n == 0 {
		return 0
	}
	return max(spare, 0) / n
}

// podResources bounds what all of a pod's containers use together: by what the pod says of itself, or else by the sum of
// those that run at the same time. Where one of them has no limit the pod has none.
func podResources(pod *corev1.Pod) runtime.Resources {
	var sum, most runtime.Resources
	bounded := func(total *int64, limit int64) {
		if limit == 0 || *total < 0 {
			*total = -1
			return
		}
		*total += limit
	}
	for _, c := range pod.GetSpec().GetContainers() {
		r := resources(pod, c, 0)
		sum.MilliCPURequest += r.MilliCPURequest
		sum.MemoryRequest += r.MemoryRequest
		bounded(&sum.MilliCPULimit, r.MilliCPULimit)
		bounded(&sum.MemoryLimit, r.MemoryLimit)
	}
	// An init container runs beside the sidecars before it; sidecars run on beside the others.
	var side runtime.Resources
	for _, c := range pod.GetSpec().GetInitContainers() {
		r := resources(pod, c, 0)
		now := side
		now.MilliCPURequest += r.MilliCPURequest
		now.MemoryRequest += r.MemoryRequest
		bounded(&now.MilliCPULimit, r.MilliCPULimit)
		bounded(&now.MemoryLimit, r.MemoryLimit)
		if sidecar(c) {
			side = now
		}
		most.MilliCPURequest, most.MemoryRequest = max(most.MilliCPURequest, now.MilliCPURequest), max(most.MemoryRequest, now.MemoryRequest)
		most.MilliCPULimit, most.MemoryLimit = larger(most.MilliCPULimit, now.MilliCPULimit), larger(most.MemoryLimit, now.MemoryLimit)
	}
	sum.MilliCPURequest, sum.MemoryRequest = sum.MilliCPURequest+side.MilliCPURequest, sum.MemoryRequest+side.MemoryRequest
	sum.MilliCPULimit, sum.MemoryLimit = both(sum.MilliCPULimit, side.MilliCPULimit), both(sum.MemoryLimit, side.MemoryLimit)
	out := runtime.Resources{
		MilliCPURequest: max(sum.MilliCPURequest, most.MilliCPURequest), MemoryRequest: max(sum.MemoryRequest, most.MemoryRequest),
		MilliCPULimit: larger(sum.MilliCPULimit, most.MilliCPULimit), MemoryLimit: larger(sum.MemoryLimit, most.MemoryLimit),
	}
	whole := pod.GetSpec().GetResources()
	said := func(bound *int64, q *metav1.Quantity, value func(*resource.Quantity) int64) {
		if q != nil {
			v := quantity(q)
			*bound = value(&v)
		}
	}
	said(&out.MilliCPURequest, whole.GetRequests()["cpu"], (*resource.Quantity).MilliValue)
	said(&out.MemoryRequest, whole.GetRequests()["memory"], (*resource.Quantity).Value)
	said(&out.MilliCPULimit, whole.GetLimits()["cpu"], (*resource.Quantity).MilliValue)
	said(&out.MemoryLimit, whole.GetLimits()["memory"], (*resource.Quantity).Value)
	cpu, memory := quantity(pod.GetSpec().GetOverhead()["cpu"]), quantity(pod.GetSpec().GetOverhead()["memory"])
	out.MilliCPURequest, out.MemoryRequest = out.MilliCPURequest+cpu.MilliValue(), out.MemoryRequest+memory.Value()
	if out.MilliCPULimit > 0 {
		out.MilliCPULimit += cpu.MilliValue()
	}
	if out.MemoryLimit > 0 {
		out.MemoryLimit += memory.Value()
	}
	return out
}

// larger and both join limits, of which a negative one stands for none and 0 for nothing that runs.
func larger(a, b int64) int64 {
	if a < 0 || b < 0 {
		return -1
	}
	return max(a, b)
}

func both(a, b int64) int64 {
	if a < 0 || b < 0 {
		return -1
	}
	return a + b
}
