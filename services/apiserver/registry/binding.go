package registry

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Bind assigns a pod that has no node to one, as Kubernetes' binding subresource does.
func Bind(pod *corev1.Pod, node string, now time.Time) error {
	k, name := kinds.Of(pod), pod.GetMetadata().GetName()
	switch {
	case pod.GetSpec().GetNodeName() != "":
		return apierr.Conflict(k, name, fmt.Sprintf("it is bound to node %q already", pod.GetSpec().GetNodeName()))
	case pod.GetMetadata().GetDeletionTimestamp() != nil:
		return apierr.Conflict(k, name, "it is being deleted")
	}
	pod.Spec.NodeName = node
	if pod.Status == nil {
		pod.Status = &corev1.PodStatus{}
	}
	pod.Status.NominatedNodeName = ""
	setScheduled(pod.Status, now)
	return nil
}

func setScheduled(status *corev1.PodStatus, now time.Time) {
	scheduled := &corev1.PodCondition{
		Type: "PodScheduled", Status: condition.True, LastTransitionTime: timestamppb.New(now.Truncate(time.Second)),
	}
	for i, c := range status.GetConditions() {
		if c.GetType() == scheduled.GetType() {
			status.Conditions[i] = scheduled
			return
		}
	}
	status.Conditions = append(status.Conditions, scheduled)
}
