package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// runtimeClass gives new pods the overhead, the node selector and the tolerations of their runtime
// class, and refuses pods whose class does not exist or contradicts them.
type runtimeClass struct{}

// Name is Kubernetes' name of it.
func (runtimeClass) Name() string { return "RuntimeClass" }

// Mutate completes a new pod.
func (r runtimeClass) Mutate(ctx context.Context, a *Attributes) error {
	spec, class, err := r.find(ctx, a)
	if err != nil || class == nil {
		return err
	}
	if overhead := class.GetOverhead(); overhead != nil {
		if len(spec.GetOverhead()) > 0 && !sameAmounts(spec.GetOverhead(), overhead.GetPodFixed()) {
			return apierr.Forbidden(a.Kind, a.Name, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
		spec.Overhead = overhead.GetPodFixed()
	}
	selector := class.GetScheduling().GetNodeSelector()
	for _, key := range slices.Sorted(maps.Keys(selector)) {
		value, set := spec.GetNodeSelector()[key]
		if set && value != selector[key] {
			return apierr.Forbidden(a.Kind, a.Name, fmt.Sprintf(
				"conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, selector[key], key, value))
		}
		if spec.NodeSelector == nil {
			spec.NodeSelector = map[string]string{}
		}
		spec.NodeSelector[key] = selector[key]
	}
	if more := class.GetScheduling().GetTolerations(); len(more) > 0 {
		spec.Tolerations = mergeTolerations(spec.GetTolerations(), more)
	}
	return nil
}

// Validate refuses an overhead that is not the class's.
func (r runtimeClass) Validate(ctx context.Context, a *Attributes) error {
	spec, class, err := r.find(ctx, a)
	if err != nil || spec == nil {
		return err
	}
	switch {
	case class.GetOverhead() == nil && len(spec.GetOverhead()) > 0:
		return apierr.Forbidden(a.Kind, a.Name, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	case class.GetOverhead() != nil && !sameAmounts(spec.GetOverhead(), class.GetOverhead().GetPodFixed()):
		return apierr.Forbidden(a.Kind, a.Name, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	}
	return nil
}

// find returns the spec of a new pod, nil for other writes, and its class, nil when it names none.
func (runtimeClass) find(ctx context.Context, a *Attributes) (*corev1.PodSpec, *nodev1.RuntimeClass, error) {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Operation != Create || a.Subresource != "" {
		return nil, nil, nil
	}
	spec := pod.GetSpec()
	if spec == nil || spec.RuntimeClassName == nil {
		return spec, nil, nil
	}
	class, found, err := read[*nodev1.RuntimeClass](ctx, a, "", spec.GetRuntimeClassName())
	if err != nil {
		return nil, nil, err
	}
	if !found {
		return nil, nil, apierr.Forbidden(a.Kind, a.Name, fmt.Sprintf("pod rejected: RuntimeClass %q not found", spec.GetRuntimeClassName()))
	}
	return spec, class, nil
}

// sameAmounts reports whether two lists of resources have the same amounts, however they are
// written.
func sameAmounts(a, b map[string]*metav1.Quantity) bool {
	return maps.EqualFunc(a, b, func(x, y *metav1.Quantity) bool {
		u, err := object.Amount(x)
		v, err2 := object.Amount(y)
		return err == nil && err2 == nil && u.Cmp(v) == 0
	})
}

// mergeTolerations returns the tolerations of both lists without those that another one covers.
func mergeTolerations(first, second []*corev1.Toleration) []*corev1.Toleration {
	var merged []*corev1.Toleration
	all := slices.Concat(first, second)
	for i, t := range all {
		covered := slices.ContainsFunc(merged, func(other *corev1.Toleration) bool { return covers(other, t) }) ||
			slices.ContainsFunc(all[i+1:], func(other *corev1.Toleration) bool { return !proto.Equal(other, t) && covers(other, t) })
		if !covered {
			merged = append(merged, t)
		}
	}
	return merged
}

// covers reports whether a toleration tolerates whatever another one does.
func covers(wide, narrow *corev1.Toleration) bool {
	const exists, noExecute = "Exists", "NoExecute"
	switch {
	case proto.Equal(wide, narrow):
		return true
	case wide.GetKey() != narrow.GetKey() && (wide.GetKey() != "" || wide.GetOperator() != exists):
		return false
	case wide.GetEffect() != "" && wide.GetEffect() != narrow.GetEffect():
		return false
	case wide.GetEffect() == noExecute && wide.TolerationSeconds != nil &&
		(narrow.TolerationSeconds == nil || narrow.GetTolerationSeconds() > wide.GetTolerationSeconds()):
		return false
	case wide.GetOperator() == "" || wide.GetOperator() == "Equal":
		return (narrow.GetOperator() == "" || narrow.GetOperator() == "Equal") && wide.GetValue() == narrow.GetValue()
	}
	return wide.GetOperator() == exists
}
