package core

import (
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// podResize is the subresource that changes the resources of a pod and of its containers in place.
// Its rules and messages are those of Kubernetes' ValidatePodResize.
var podResize = &scheme.Part{
	Fields: []string{
		".spec.resources",
		".spec.containers[*].resources", ".spec.containers[*].resizePolicy",
		".spec.initContainers[*].resources", ".spec.initContainers[*].resizePolicy",
	},
	Restrict: func(new, old scheme.Object) { restrictResize(new.(*corev1.Pod), old.(*corev1.Pod)) },
	Validate: func(new, old scheme.Object) field.ErrorList {
		c := &rules.Checker{}
		checkResize(c, new.(*corev1.Pod), old.(*corev1.Pod))
		return c.List
	},
}

// restrictResize leaves a pod whose containers are not those of old as it is.
func restrictResize(new, old *corev1.Pod) {
	spec, wanted := proto.CloneOf(old.GetSpec()), new.GetSpec()
	if !resizeContainers(spec.GetContainers(), wanted.GetContainers()) ||
		!resizeContainers(spec.GetInitContainers(), wanted.GetInitContainers()) {
		return
	}
	spec.Resources = wanted.GetResources()
	new.Spec = spec
}

// resizeContainers sets what a resize may change, and reports whether both lists have the same
// containers.
func resizeContainers(containers, wanted []*corev1.Container) bool {
	if len(containers) != len(wanted) {
		return false
	}
	for i, w := range wanted {
		if containers[i].GetName() != w.GetName() {
			return false
		}
		containers[i].Resources, containers[i].ResizePolicy = w.GetResources(), w.GetResizePolicy()
	}
	return true
}

func checkResize(c *rules.Checker, new, old *corev1.Pod) {
	if IsMirrorPod(old) {
		c.Forbidden(field.NewPath(""), "static pods cannot be resized")
		return
	}
	p, now, was := field.NewPath("spec"), new.GetSpec(), old.GetSpec()
	if PodQOS(now) != PodQOS(was) {
		c.Invalid(p, PodQOS(was), "Pod QOS Class may not change as a result of resizing")
	}
	checkResizePod(c, p, now.GetResources(), was.GetResources())
	same := checkSameContainers(c, p.Child("containers"), "containers", now.GetContainers(), was.GetContainers())
	sameInit := checkSameContainers(c, p.Child("initContainers"), "initContainers", now.GetInitContainers(), was.GetInitContainers())
	if !same || !sameInit {
		return
	}
	for i, x := range now.GetInitContainers() {
		at, y := p.Child("initContainers").Index(i), was.GetInitContainers()[i]
		switch {
		case x.GetRestartPolicy() == RestartAlways:
			checkResizeContainer(c, at, at, x, y, "only cpu and memory resources for init or sidecar containers are mutable")
		case !proto.Equal(x, y):
			c.Forbidden(at.Child("resources"), "resources for non-sidecar init containers are immutable")
		}
	}
	for i, x := range now.GetContainers() {
		checkResizeContainer(c, p, p.Child("containers").Index(i), x, was.GetContainers()[i], "only cpu and memory resources are mutable")
	}
}

// checkResizePod checks how the resources of a pod as a whole change.
func checkResizePod(c *rules.Checker, p *field.Path, now, was *corev1.ResourceRequirements) {
	if was != nil && now == nil {
		c.Forbidden(p.Child("resources"), "pod-level resources cannot be removed")
		return
	}
	if was == nil && now != nil && len(now.GetRequests())+len(now.GetLimits()) == 0 {
		c.Forbidden(p, "only cpu and memory resources are mutable")
		return
	}
	checkResourcesKept(c, p.Child("resources"), now, was, "pod-level resource")
	if !sameButCPUAndMemory(now, was) {
		c.Forbidden(p, "only cpu and memory resources are mutable at pod-level")
	}
}

// checkResizeContainer checks how a container changes. Fields that a resize may not change are an
// error at p.
func checkResizeContainer(c *rules.Checker, p, at *field.Path, now, was *corev1.Container, immutable string) {
	checkResourcesKept(c, at.Child("resources"), now.GetResources(), was.GetResources(), "resource")
	same := proto.CloneOf(now)
	same.Resources = was.GetResources()
	if !proto.Equal(same, was) || !sameButCPUAndMemory(now.GetResources(), was.GetResources()) {
		c.Forbidden(p, immutable)
	}
}

// checkResourcesKept refuses the removal of requests and limits.
func checkResourcesKept(c *rules.Checker, at *field.Path, now, was *corev1.ResourceRequirements, what string) {
	removed := func(now, was map[string]*metav1.Quantity) bool {
		for name := range was {
			if now[name] == nil {
				return true
			}
		}
		return false
	}
	if removed(now.GetRequests(), was.GetRequests()) {
		c.Forbidden(at.Child("requests"), what+" requests cannot be removed")
	}
	if removed(now.GetLimits(), was.GetLimits()) {
		c.Forbidden(at.Child("limits"), what+" limits cannot be removed")
	}
}

// sameButCPUAndMemory reports whether resources differ in no more than cpu and memory.
func sameButCPUAndMemory(now, was *corev1.ResourceRequirements) bool {
	rest := func(r *corev1.ResourceRequirements) *corev1.ResourceRequirements {
		out := proto.CloneOf(r)
		if out == nil {
			return &corev1.ResourceRequirements{}
		}
		for _, list := range []map[string]*metav1.Quantity{out.Requests, out.Limits} {
			delete(list, ResourceCPU)
			delete(list, ResourceMemory)
		}
		return out
	}
	return proto.Equal(rest(now), rest(was))
}

func checkSameContainers(c *rules.Checker, p *field.Path, what string, now, was []*corev1.Container) bool {
	if len(now) != len(was) {
		c.Forbidden(p, what+" may not be added or removed on resize")
		return false
	}
	same := true
	for i, x := range now {
		if x.GetName() != was[i].GetName() {
			c.Forbidden(p.Index(i).Child("name"), what+" may not be renamed or reordered on resize")
			same = false
		}
	}
	return same
}
