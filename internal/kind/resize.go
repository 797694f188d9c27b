package kind

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// What it takes to change a resource of a running container.
const (
	ResizeNotRequired      = "NotRequired"
	ResizeRestartContainer = "RestartContainer"
)

// resizePolicy checks what a container says about changes of its resources.
func (c *checker) resizePolicy(p *field.Path, list []*corev1.ContainerResizePolicy) {
	seen := names{}
	for i, r := range list {
		c.oneOf(p.Index(i).Child("resourceName"), r.GetResourceName(), ResourceCPU, ResourceMemory)
		c.oneOf(p.Index(i).Child("restartPolicy"), r.GetRestartPolicy(), ResizeNotRequired, ResizeRestartContainer)
		c.unique(p.Index(i).Child("resourceName"), seen, r.GetResourceName())
	}
}

// resize checks how the resources of a pod's containers change, and returns whether they may at all. Only cpu and memory
// may, and a pod stays in its class of service, which decides what the node does when it runs short.
func (c *checker) resize(p *field.Path, now, was *corev1.PodSpec) {
	changed := false
	each := func(p *field.Path, now, was []*corev1.Container, may func(*corev1.Container) bool) {
		for i := range now {
			n, w := now[i].GetResources(), was[i].GetResources()
			at := p.Index(i).Child("resources")
			for _, list := range []struct {
				name     string
				now, was map[string]*metav1.Quantity
			}{{"requests", n.GetRequests(), w.GetRequests()}, {"limits", n.GetLimits(), w.GetLimits()}} {
				for _, name := range slices.Sorted(maps.Keys(union(list.now, list.was))) {
					switch x, y := list.now[name], list.was[name]; {
					case x != nil && y != nil && x.GetString_() == y.GetString_():
					case name != ResourceCPU && name != ResourceMemory:
						c.forbidden(at.Child(list.name).Key(name), "only cpu and memory resources are mutable")
					case x == nil:
						c.forbidden(at.Child(list.name).Key(name), "resource "+list.name+" cannot be removed")
					case !may(now[i]):
						c.forbidden(at, "resources of non-sidecar init containers are immutable")
					default:
						changed = true
					}
				}
			}
		}
	}
	each(p.Child("containers"), now.GetContainers(), was.GetContainers(), func(*corev1.Container) bool { return true })
	each(p.Child("initContainers"), now.GetInitContainers(), was.GetInitContainers(), func(x *corev1.Container) bool { return x.GetRestartPolicy() == RestartAlways })
	if changed && PodQOS(now) != PodQOS(was) {
		c.invalid(p, PodQOS(now), "Pod QOS Class may not change as a result of resizing: it is "+PodQOS(was))
	}
}

func union(a, b map[string]*metav1.Quantity) map[string]*metav1.Quantity {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]*metav1.Quantity{}
	}
	maps.Copy(out, b)
	return out
}
