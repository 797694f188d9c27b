package admission

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
)

// priority gives new pods the priority and the preemption policy of their class, or of the class
// that is the default of the cluster. It refuses a second default, and the deletion of the classes
// that every cluster has.
type priority struct {
	// classes returns all priority classes.
	classes func(ctx context.Context) ([]*schedulingv1.PriorityClass, error)
}

// Name is Kubernetes' name of it.
func (priority) Name() string { return "Priority" }

// Mutate completes a new pod, and keeps in an update what the client left out.
func (p priority) Mutate(ctx context.Context, a *Attributes) error {
	if a.Subresource != "" {
		return nil
	}
	if _, ok := a.Old.(*schedulingv1.PriorityClass); ok && a.Operation == Delete && scheduling.IsSystemClass(a.Name) {
		return apierr.Forbidden(a.Kind, a.Name, "this is a system priority class and cannot be deleted")
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	spec := pod.GetSpec()
	if spec == nil {
		return nil // validation reports it
	}
	if old, ok := a.Old.(*corev1.Pod); ok {
		if spec.Priority == nil {
			spec.Priority = old.GetSpec().Priority
		}
		if spec.PreemptionPolicy == nil {
			spec.PreemptionPolicy = old.GetSpec().PreemptionPolicy
		}
		return nil
	}
	class, err := p.classOf(ctx, a, spec.GetPriorityClassName())
	if err != nil {
		return err
	}
	if spec.Priority != nil && spec.GetPriority() != class.GetValue() {
		return apierr.Forbidden(a.Kind, a.Name, fmt.Sprintf("the integer value of priority (%d) must not be provided in pod spec; "+
			"priority admission controller computed %d from the given PriorityClass name", spec.GetPriority(), class.GetValue()))
	}
	if spec.PreemptionPolicy != nil && spec.GetPreemptionPolicy() != class.GetPreemptionPolicy() {
		return apierr.Forbidden(a.Kind, a.Name, fmt.Sprintf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; "+
			"priority admission controller computed %s from the given PriorityClass name", spec.GetPreemptionPolicy(), class.GetPreemptionPolicy()))
	}
	spec.PriorityClassName = class.GetMetadata().GetName()
	spec.Priority, spec.PreemptionPolicy = proto.Int32(class.GetValue()), proto.String(class.GetPreemptionPolicy())
	return nil
}

// Validate refuses a second class that is the default.
func (p priority) Validate(ctx context.Context, a *Attributes) error {
	class, ok := a.Object.(*schedulingv1.PriorityClass)
	if !ok || !class.GetGlobalDefault() || a.Subresource != "" {
		return nil
	}
	other, err := p.globalDefault(ctx)
	if err != nil {
		return err
	}
	if name := other.GetMetadata().GetName(); name != "" && (a.Operation == Create || name != a.Name) {
		return apierr.Forbidden(a.Kind, a.Name, fmt.Sprintf("PriorityClass %s is already marked as default. Only one default can exist", name))
	}
	return nil
}

// classOf returns the named class, or the default one if the name is empty.
func (p priority) classOf(ctx context.Context, a *Attributes, name string) (*schedulingv1.PriorityClass, error) {
	if name == "" {
		return p.globalDefault(ctx)
	}
	class, found, err := read[*schedulingv1.PriorityClass](ctx, a, "", name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, apierr.Forbidden(a.Kind, a.Name, fmt.Sprintf("no PriorityClass with name %s was found", name))
	}
	return class, nil
}

// globalDefault returns the class that is the default: of several that with the lowest value, and
// without any one that has no name and priority 0.
func (p priority) globalDefault(ctx context.Context) (*schedulingv1.PriorityClass, error) {
	all, err := p.classes(ctx)
	if err != nil {
		return nil, err
	}
	var lowest *schedulingv1.PriorityClass
	for _, c := range all {
		if c.GetGlobalDefault() && (lowest == nil || c.GetValue() < lowest.GetValue()) {
			lowest = c
		}
	}
	if lowest == nil {
		lowest = &schedulingv1.PriorityClass{PreemptionPolicy: proto.String(scheduling.PreemptLowerPriority)}
	}
	return lowest, nil
}
