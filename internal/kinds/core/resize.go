package core

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// checkResize checks how the resources of a pod and of its containers change, and returns whether
// they may at all. Only cpu and memory may, and a pod stays in its class of service, which decides
// what the node does when it runs short.
func checkResize(c *rules.Checker, p *field.Path, now, was *corev1.PodSpec) {
	changed := checkResizeOf(c, p.Child("resources"), now.GetResources(), was.GetResources(), "")
	for i, x := range now.GetContainers() {
		at := p.Child("containers").Index(i).Child("resources")
		changed = checkResizeOf(c, at, x.GetResources(), was.GetContainers()[i].GetResources(), "") || changed
	}
	for i, x := range now.GetInitContainers() {
		at, refused := p.Child("initContainers").Index(i).Child("resources"), ""
		if x.GetRestartPolicy() != RestartAlways {
			refused = "resources of non-sidecar init containers are immutable"
		}
		changed = checkResizeOf(c, at, x.GetResources(), was.GetInitContainers()[i].GetResources(), refused) || changed
	}
	if changed && PodQOS(now) != PodQOS(was) {
		c.Invalid(p, PodQOS(now), "Pod QOS Class may not change as a result of resizing: it is "+PodQOS(was))
	}
}

// checkResizeOf checks how the resources of one of them change, and returns whether they do and
// may. With refused, which says why, none of them may.
func checkResizeOf(c *rules.Checker, at *field.Path, now, was *corev1.ResourceRequirements, refused string) (changed bool) {
	for _, list := range []struct {
		name     string
		now, was map[string]*metav1.Quantity
	}{{"requests", now.GetRequests(), was.GetRequests()}, {"limits", now.GetLimits(), was.GetLimits()}} {
		for _, name := range slices.Sorted(maps.Keys(union(list.now, list.was))) {
			switch x, y := list.now[name], list.was[name]; {
			case x != nil && y != nil && x.GetString_() == y.GetString_():
			case name != ResourceCPU && name != ResourceMemory:
				c.Forbidden(at.Child(list.name).Key(name), "only cpu and memory resources are mutable")
			case x == nil:
				c.Forbidden(at.Child(list.name).Key(name), "resource "+list.name+" cannot be removed")
			case refused != "":
				c.Forbidden(at, refused)
			default:
				changed = true
			}
		}
	}
	return changed
}

func union(a, b map[string]*metav1.Quantity) map[string]*metav1.Quantity {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]*metav1.Quantity{}
	}
	maps.Copy(out, b)
	return out
}
