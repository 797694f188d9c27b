package resources

import (
	"maps"
	"slices"

	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// WholePod is the name by which what the pod as a whole has been granted is kept. No container has
// it.
const WholePod = ""

// Allotment is the resources of a container, or of a pod as a whole, as they are kept on disk.
type Allotment struct {
	Requests, Limits map[string]string
}

// AllotmentOf is the allotment that requests and limits ask for.
func AllotmentOf(r *corev1.ResourceRequirements) Allotment {
	text := func(in map[string]*metav1.Quantity) map[string]string {
		out := map[string]string{}
		for name, q := range in {
			out[name] = q.GetString_()
		}
		return out
	}
	return Allotment{Requests: text(r.GetRequests()), Limits: text(r.GetLimits())}
}

// Requirements is the inverse of AllotmentOf.
func (a Allotment) Requirements() *corev1.ResourceRequirements {
	amounts := func(in map[string]string) map[string]*metav1.Quantity {
		if len(in) == 0 {
			return nil
		}
		out := map[string]*metav1.Quantity{}
		for name, text := range in {
			out[name] = &metav1.Quantity{String_: text}
		}
		return out
	}
	return &corev1.ResourceRequirements{Requests: amounts(a.Requests), Limits: amounts(a.Limits)}
}

// Empty reports whether there are neither requests nor limits.
func (a Allotment) Empty() bool { return len(a.Requests)+len(a.Limits) == 0 }

// Equal reports whether two allotments have the same text of each quantity.
func (a Allotment) Equal(b Allotment) bool {
	return maps.Equal(a.Requests, b.Requests) && maps.Equal(a.Limits, b.Limits)
}

// LimitChanges returns which of cpu and memory have different limits.
func LimitChanges(a, b map[string]string) []string {
	return slices.DeleteFunc([]string{"cpu", "memory"}, func(name string) bool { return a[name] == b[name] })
}

// Changes returns which of cpu and memory differ.
func (a Allotment) Changes(b Allotment) []string {
	var out []string
	for _, name := range []string{"cpu", "memory"} {
		if a.Requests[name] != b.Requests[name] || a.Limits[name] != b.Limits[name] {
			out = append(out, name)
		}
	}
	return out
}

// Allotments is what a pod asks for, by container, and as a whole.
func Allotments(pod *corev1.Pod) map[string]Allotment {
	out := map[string]Allotment{WholePod: AllotmentOf(pod.GetSpec().GetResources())}
	for _, c := range Containers(pod) {
		out[c.GetName()] = AllotmentOf(c.GetResources())
	}
	return out
}

// Wider is a bound that neither of two is beyond.
func Wider(a, b runtime.Resources) runtime.Resources {
	limit := func(x, y int64) int64 {
		if x <= 0 || y <= 0 {
			return 0
		}
		return max(x, y)
	}
	return runtime.Resources{
		MilliCPURequest: max(a.MilliCPURequest, b.MilliCPURequest),
		MilliCPULimit:   limit(a.MilliCPULimit, b.MilliCPULimit), MemoryLimit: limit(a.MemoryLimit, b.MemoryLimit),
	}
}

// Find returns the container of that name, nil if there is none.
func Find(pod *corev1.Pod, name string) *corev1.Container {
	for _, c := range Containers(pod) {
		if c.GetName() == name {
			return c
		}
	}
	return nil
}

// RestartsFor reports whether a container wants to be restarted when one of the resources changes.
func RestartsFor(c *corev1.Container, changed []string) bool {
	return slices.ContainsFunc(c.GetResizePolicy(), func(p *corev1.ContainerResizePolicy) bool {
		return p.GetRestartPolicy() == "RestartContainer" && slices.Contains(changed, p.GetResourceName())
	})
}
