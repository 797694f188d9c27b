package framework

import (
	"fmt"
	"maps"
	"slices"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Request is an amount of a resource that a pod takes, in the unit of Resources.
type Request struct {
	// Name is the resource's name.
	Name string
	// Amount is more than zero.
	Amount int64
}

// podRequests returns the amounts that a pod takes, as Kubernetes counts: the pod's own requests,
// or else those of its containers and sidecars together, or of its largest init container if that
// is more; and its overhead. A pod, container or sidecar that is being resized counts for the most
// of what it requests, what its node has allocated and what is in force; without the request where
// the node can never grant it.
func podRequests(p *corev1.Pod) ([]Request, error) {
	spec := p.GetSpec()
	statuses := map[string]*corev1.ContainerStatus{}
	for _, c := range slices.Concat(p.GetStatus().GetContainerStatuses(), p.GetStatus().GetInitContainerStatuses()) {
		statuses[c.GetName()] = c
	}
	infeasible := core.PodCondition(p, "PodResizePending").GetReason() == "Infeasible"
	total := Amounts{core.ResourcePods: 1}
	for _, c := range spec.GetContainers() {
		r, err := ReadAmounts(c.GetResources().GetRequests())
		if err == nil {
			err = r.resize(infeasible, statuses[c.GetName()])
		}
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", c.GetName(), err)
		}
		total.add(r)
	}
	// An init container runs beside the sidecars before it; sidecars run on beside the others.
	sidecars, most := Amounts{}, Amounts{}
	for _, c := range spec.GetInitContainers() {
		r, err := ReadAmounts(c.GetResources().GetRequests())
		if err == nil && c.GetRestartPolicy() == core.RestartAlways {
			err = r.resize(infeasible, statuses[c.GetName()])
		}
		if err != nil {
			return nil, fmt.Errorf("init container %s: %w", c.GetName(), err)
		}
		r.add(sidecars)
		most.raise(r)
		if c.GetRestartPolicy() == core.RestartAlways {
			sidecars = r
		}
	}
	total.add(sidecars)
	total.raise(most)
	whole, err := ReadAmounts(spec.GetResources().GetRequests())
	if err == nil {
		err = whole.resize(infeasible, p.GetStatus())
	}
	if err != nil {
		return nil, fmt.Errorf("resources of the pod: %w", err)
	}
	maps.Copy(total, whole)
	overhead, err := ReadAmounts(spec.GetOverhead())
	if err != nil {
		return nil, fmt.Errorf("overhead: %w", err)
	}
	total.add(overhead)
	return total.requests(), nil
}

func (a Amounts) add(o Amounts) {
	for name, n := range o {
		a[name] += n
	}
}

// raise makes each amount at least that of o.
func (a Amounts) raise(o Amounts) {
	for name, n := range o {
		a[name] = max(a[name], n)
	}
}

// resize turns requests that are being changed in place into what they count for, given the status
// of their owner.
func (a Amounts) resize(infeasible bool, status interface {
	GetAllocatedResources() map[string]*metav1.Quantity
	GetResources() *corev1.ResourceRequirements
}) error {
	allocated, err := ReadAmounts(status.GetAllocatedResources())
	if err != nil {
		return fmt.Errorf("allocated: %w", err)
	}
	inForce, err := ReadAmounts(status.GetResources().GetRequests())
	if err != nil {
		return fmt.Errorf("in force: %w", err)
	}
	ignored := infeasible && len(allocated)+len(inForce) > 0
	for name := range a {
		if has := max(allocated[name], inForce[name]); has > a[name] || ignored {
			a[name] = has
		}
	}
	return nil
}

// requests lists the amounts by name.
func (a Amounts) requests() []Request {
	list := make([]Request, 0, len(a))
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if a[name] != 0 {
			list = append(list, Request{name, a[name]})
		}
	}
	return list
}
