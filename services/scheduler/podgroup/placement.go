package podgroup

import (
	"fmt"
	"slices"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Placement is what became of the pods of a gang in one cycle.
type Placement struct {
	// Assignments are the pods that are reserved on nodes, at least as many as the gang needs. They
	// are empty when the gang does not fit.
	Assignments []framework.Assignment
	// Unfit are the pods that fit on no node beside the pods before them.
	Unfit []Unfit
	// Others are the other pods: those that were not looked at and, when the gang does not fit, those
	// that would have.
	Others []*framework.Pod

	need, fit int
}

// Unfit is a pod that fits on no node.
type Unfit struct {
	// Pod is the pod and Why the reason.
	Pod *framework.Pod
	Why *framework.FitError
}

// Place chooses nodes for pods one after the other and reserves each before the next is looked at,
// at most as many as one transaction binds. When fewer than need fit, it undoes all reservations.
// No pods are preempted. An error is that of a reservation; then nothing is reserved.
func Place(f *framework.Profile, s *framework.Snapshot, pods []*framework.Pod, need, most int) (Placement, error) {
	out := Placement{need: need}
	for i, p := range pods {
		if len(out.Assignments) == most || len(out.Assignments)+len(pods)-i < need {
			out.Others = slices.Clone(pods[i:])
			break
		}
		node, unfit := f.Place(s, p)
		if unfit != nil {
			out.Unfit = append(out.Unfit, Unfit{p, unfit})
			continue
		}
		a := framework.Assignment{Pod: p, Node: node}
		if err := f.Reserve(a); err != nil {
			Undo(f, out.Assignments)
			return Placement{}, err
		}
		out.Assignments = append(out.Assignments, a)
	}
	out.fit = len(out.Assignments)
	if out.fit < need {
		Undo(f, out.Assignments)
		for _, a := range out.Assignments {
			out.Others = append(out.Others, a.Pod)
		}
		out.Assignments = nil
	}
	return out, nil
}

// Undo ends reservations, the last one first.
func Undo(f *framework.Profile, assignments []framework.Assignment) {
	for _, a := range slices.Backward(assignments) {
		f.Unreserve(a)
	}
}

// Fits reports whether the gang has its nodes.
func (p Placement) Fits() bool { return len(p.Assignments) > 0 && len(p.Assignments) >= p.need }

// Message says why a gang does not fit.
func (p Placement) Message() string {
	text := fmt.Sprintf("pod group is unschedulable: %d pods have to be placed together, %d fit", p.need, p.fit)
	if len(p.Unfit) > 0 {
		u := p.Unfit[0]
		text += fmt.Sprintf("; pod %s/%s: %s", u.Pod.Namespace, u.Pod.Name, u.Why.Error())
	}
	return text
}
