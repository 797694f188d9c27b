package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// PodRequests is what a pod asks of a node: of each resource what it says itself, or else what its
// containers that run at the same time say together; and its overhead. The error names a quantity
// that does not parse.
func PodRequests(s *corev1.PodSpec) (map[string]resource.Quantity, error) {
	total, err := containerRequests(s)
	if err != nil {
		return nil, err
	}
	for name, q := range s.GetResources().GetRequests() {
		if total[name], err = object.Amount(q); err != nil {
			return nil, fmt.Errorf("resource %s of the pod: %w", name, err)
		}
	}
	for name, q := range s.GetOverhead() {
		v, err := object.Amount(q)
		if err != nil {
			return nil, fmt.Errorf("overhead of %s: %w", name, err)
		}
		v.Add(total[name])
		total[name] = v
	}
	return total, nil
}

// containerRequests is what a pod's containers ask for together: all that do its work and the
// sidecars, or an init container beside the sidecars before it where that is more.
func containerRequests(s *corev1.PodSpec) (map[string]resource.Quantity, error) {
	sum, most := map[string]resource.Quantity{}, map[string]resource.Quantity{}
	add := func(to map[string]resource.Quantity, c *corev1.Container) error {
		for name, q := range c.GetResources().GetRequests() {
			v, err := object.Amount(q)
			if err != nil {
				return fmt.Errorf("resource %s of container %s: %w", name, c.GetName(), err)
			}
			v.Add(to[name])
			to[name] = v
		}
		return nil
	}
	for _, c := range s.GetInitContainers() {
		now := maps.Clone(sum)
		if err := add(now, c); err != nil {
			return nil, err
		}
		for name, v := range now {
			if v.Cmp(most[name]) > 0 {
				most[name] = v
			}
		}
		if c.GetRestartPolicy() == RestartAlways {
			sum = now
		}
	}
	for _, c := range s.GetContainers() {
		if err := add(sum, c); err != nil {
			return nil, err
		}
	}
	for name, v := range most {
		if v.Cmp(sum[name]) > 0 {
			sum[name] = v
		}
	}
	return sum, nil
}

// podResource reports whether the resources of a pod as a whole may include a resource.
func podResource(name string) bool {
	return name == ResourceCPU || name == ResourceMemory || strings.HasPrefix(name, ResourceHugePagesPrefix)
}

// defaultPodResources fills in what a pod asks for that says something of its resources as a whole.
func defaultPodResources(s *corev1.PodSpec) {
	if r := s.GetResources(); len(r.GetRequests())+len(r.GetLimits()) > 0 {
		r.Requests = wholeRequests(s)
	}
}

// wholeRequests is what a pod as a whole asks for when it says something of its resources: what it
// says, or else what its containers ask for, or else what it is limited to.
func wholeRequests(s *corev1.PodSpec) map[string]*metav1.Quantity {
	requests := maps.Clone(s.GetResources().GetRequests())
	if requests == nil {
		requests = map[string]*metav1.Quantity{}
	}
	// What does not parse is refused by validation.
	if asked, err := containerRequests(s); err == nil {
		for name, v := range asked {
			if requests[name] == nil && podResource(name) {
				requests[name] = &metav1.Quantity{String_: v.String()}
			}
		}
	}
	for name, limit := range s.GetResources().GetLimits() {
		if requests[name] == nil && podResource(name) {
			requests[name] = proto.CloneOf(limit)
		}
	}
	return requests
}

// checkPodResources checks what a pod says of its resources as a whole, and that its containers
// keep within that.
func checkPodResources(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	r := s.GetResources()
	if r == nil {
		return
	}
	at := p.Child("resources")
	for _, list := range []struct {
		name    string
		amounts map[string]*metav1.Quantity
	}{{"limits", r.GetLimits()}, {"requests", r.GetRequests()}} {
		for _, name := range slices.Sorted(maps.Keys(list.amounts)) {
			if !podResource(name) {
				c.Add(field.NotSupported(at.Child(list.name).Key(name), name,
					[]string{ResourceCPU, ResourceMemory, ResourceHugePagesPrefix + "<size>"}))
			}
		}
	}
	CheckResources(c, at, r)
	if asked, err := containerRequests(s); err == nil {
		for _, name := range slices.Sorted(maps.Keys(r.GetRequests())) {
			has, err := object.Amount(r.GetRequests()[name])
			if want := asked[name]; err == nil && has.Sign() >= 0 && want.Cmp(has) > 0 {
				c.Invalid(at.Child("requests").Key(name), r.GetRequests()[name].GetString_(),
					"must be greater than or equal to aggregate container requests of "+want.String())
			}
		}
	}
	within := func(p *field.Path, list []*corev1.Container) {
		for i, x := range list {
			for _, name := range slices.Sorted(maps.Keys(r.GetLimits())) {
				limit := x.GetResources().GetLimits()[name]
				most, err1 := object.Amount(r.GetLimits()[name])
				has, err2 := object.Amount(limit)
				if limit != nil && err1 == nil && err2 == nil && has.Cmp(most) > 0 {
					c.Invalid(p.Index(i).Child("resources", "limits").Key(name), limit.GetString_(),
						"must be less than or equal to pod limits of "+most.String())
				}
			}
		}
	}
	within(p.Child("initContainers"), s.GetInitContainers())
	within(p.Child("containers"), s.GetContainers())
}

// PodQOS is the pod's quality of service: Guaranteed when every container has a limit of CPU and
// memory and requests as much, BestEffort when none asks for anything, Burstable otherwise. Of a
// pod that says something of its resources as a whole only that counts. Requests that are left out
// count as defaulting fills them in, so it may be asked before.
func PodQOS(s *corev1.PodSpec) string {
	var all []*corev1.ResourceRequirements
	if r := s.GetResources(); len(r.GetLimits())+len(r.GetRequests()) > 0 {
		all = append(all, &corev1.ResourceRequirements{Limits: r.GetLimits(), Requests: wholeRequests(s)})
	} else {
		for _, c := range slices.Concat(s.GetInitContainers(), s.GetContainers()) {
			all = append(all, c.GetResources())
		}
	}
	guaranteed, any := true, false
	for _, r := range all {
		limits, requests := r.GetLimits(), r.GetRequests()
		for _, name := range []string{ResourceCPU, ResourceMemory} {
			limit, err1 := object.Amount(limits[name])
			request, err2 := object.Amount(requests[name])
			if requests[name] == nil {
				request = limit
			}
			if err1 != nil || err2 != nil {
				guaranteed = false
				continue
			}
			any = any || !limit.IsZero() || !request.IsZero()
			if limit.IsZero() || limit.Cmp(request) != 0 {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return QOSBestEffort
	case guaranteed:
		return QOSGuaranteed
	}
	return QOSBurstable
}

// copeWithPressure adds the toleration of memory pressure to a pod with requests, which is evicted
// after pods without any. Static pods are bound to their node already.
func copeWithPressure(p *corev1.Pod) {
	if IsMirrorPod(p) || PodQOS(p.GetSpec()) == QOSBestEffort {
		return
	}
	pressure := &corev1.Taint{Key: TaintMemoryPressure, Effect: TaintNoSchedule}
	if !slices.ContainsFunc(p.GetSpec().GetTolerations(), func(t *corev1.Toleration) bool { return Tolerates(t, pressure) }) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, &corev1.Toleration{
			Key: TaintMemoryPressure, Operator: object.OpExists, Effect: TaintNoSchedule,
		})
	}
}
