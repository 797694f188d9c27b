// Package resources computes from a pod's spec what its containers, and the pod as a whole, may use
// of the node.
package resources

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Of returns the resources of one container of a pod, on a node with that much memory. A container
// without a request requests its limit; one without a limit has the pod's.
func Of(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) runtime.Resources {
	limits, requests := c.GetResources().GetLimits(), c.GetResources().GetRequests()
	cpu, memory := requests["cpu"], requests["memory"]
	if cpu == nil {
		cpu = limits["cpu"]
	}
	if memory == nil {
		memory = limits["memory"]
	}
	request, asked := Quantity(cpu), Quantity(memory)
	limit, mem := Quantity(Limit(pod, c, "cpu")), Quantity(Limit(pod, c, "memory"))
	return runtime.Resources{
		MilliCPURequest: request.MilliValue(), MilliCPULimit: limit.MilliValue(), MemoryLimit: mem.Value(), MemoryRequest: asked.Value(),
		OOMScoreAdj: oomScoreAdj(core.PodQOS(pod.GetSpec()), asked.Value()+spareMemory(pod), nodeMemory),
	}
}

// Limit is what a container may use of a resource: what it says, or else all that the pod as a
// whole may. It is nil when neither says anything.
func Limit(pod *corev1.Pod, c *corev1.Container, name string) *metav1.Quantity {
	if own := c.GetResources().GetLimits()[name]; own != nil {
		return own
	}
	return pod.GetSpec().GetResources().GetLimits()[name]
}

// spareMemory is each container's share of the memory that the pod as a whole asks for beyond what
// its containers do.
func spareMemory(pod *corev1.Pod) int64 {
	spec := pod.GetSpec()
	whole, n := Quantity(spec.GetResources().GetRequests()["memory"]), int64(len(spec.GetContainers()))
	spare := whole.Value()
	for _, c := range spec.GetInitContainers() {
		if IsSidecar(c) {
			q := Quantity(c.GetResources().GetRequests()["memory"])
			spare, n = spare-q.Value(), n+1
		}
	}
	for _, c := range spec.GetContainers() {
		q := Quantity(c.GetResources().GetRequests()["memory"])
		spare -= q.Value()
	}
	if n == 0 {
		return 0
	}
	return max(spare, 0) / n
}

// OfPod bounds what all of a pod's containers use together: by what the pod says of itself, or else
// by the sum of those that run at the same time. Where one of them has no limit the pod has none.
func OfPod(pod *corev1.Pod) runtime.Resources {
	var sum, most runtime.Resources
	bounded := func(total *int64, limit int64) {
		if limit == 0 || *total < 0 {
			*total = -1
			return
		}
		*total += limit
	}
	for _, c := range pod.GetSpec().GetContainers() {
		r := Of(pod, c, 0)
		sum.MilliCPURequest += r.MilliCPURequest
		sum.MemoryRequest += r.MemoryRequest
		bounded(&sum.MilliCPULimit, r.MilliCPULimit)
		bounded(&sum.MemoryLimit, r.MemoryLimit)
	}
	// An init container runs beside the sidecars before it; sidecars run on beside the others.
	var side runtime.Resources
	for _, c := range pod.GetSpec().GetInitContainers() {
		r := Of(pod, c, 0)
		now := side
		now.MilliCPURequest += r.MilliCPURequest
		now.MemoryRequest += r.MemoryRequest
		bounded(&now.MilliCPULimit, r.MilliCPULimit)
		bounded(&now.MemoryLimit, r.MemoryLimit)
		if IsSidecar(c) {
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
			v := Quantity(q)
			*bound = value(&v)
		}
	}
	said(&out.MilliCPURequest, whole.GetRequests()["cpu"], (*resource.Quantity).MilliValue)
	said(&out.MemoryRequest, whole.GetRequests()["memory"], (*resource.Quantity).Value)
	said(&out.MilliCPULimit, whole.GetLimits()["cpu"], (*resource.Quantity).MilliValue)
	said(&out.MemoryLimit, whole.GetLimits()["memory"], (*resource.Quantity).Value)
	cpu, memory := Quantity(pod.GetSpec().GetOverhead()["cpu"]), Quantity(pod.GetSpec().GetOverhead()["memory"])
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

// oomScoreAdj orders containers for the kernel when the node's memory runs out: those without
// requests go first, then those that asked for the smallest share. The score is never below 0.
func oomScoreAdj(qos string, request, nodeMemory int64) int {
	switch {
	case qos == "BestEffort":
		return 1000
	case qos == "Guaranteed" || nodeMemory <= 0:
		return 0
	}
	return int(min(max(1000-1000*request/nodeMemory, 2), 999))
}

// Quantity parses a quantity that validation has seen; what is absent or malformed is zero.
func Quantity(q *metav1.Quantity) resource.Quantity {
	v, err := object.ParseQuantity(q.GetString_())
	if err != nil {
		return resource.Quantity{}
	}
	return v
}

// IsSidecar reports whether an init container is one that runs along with the others.
func IsSidecar(c *corev1.Container) bool { return c.GetRestartPolicy() == "Always" }

// Containers returns all containers of a pod's spec.
func Containers(pod *corev1.Pod) []*corev1.Container {
	return slices.Concat(pod.GetSpec().GetInitContainers(), pod.GetSpec().GetContainers(), core.EphemeralContainers(pod.GetSpec()))
}
