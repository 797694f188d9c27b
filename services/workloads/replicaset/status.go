package replicaset

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// newStatus is the status of a set with these pods. It returns when the next pod becomes available,
// 0 for never.
func newStatus(rs *appsv1.ReplicaSet, owned []*corev1.Pod, scaleErr error, now time.Time) (*appsv1.ReplicaSetStatus, time.Duration) {
	status := &appsv1.ReplicaSetStatus{ObservedGeneration: rs.GetMetadata().GetGeneration()}
	templateLabels := labels.SelectorFromValidatedSet(rs.GetSpec().GetTemplate().GetMetadata().GetLabels())
	var again time.Duration
	var terminating int32
	for _, p := range owned {
		if p.GetMetadata().GetDeletionTimestamp() != nil && !core.IsPodFinished(p) {
			terminating++
		}
		if !podcontrol.IsActive(p) {
			continue
		}
		status.Replicas++
		if templateLabels.Matches(labels.Set(p.GetMetadata().GetLabels())) {
			status.FullyLabeledReplicas++
		}
		wait, isReady := podcontrol.AvailableIn(p, rs.GetSpec().GetMinReadySeconds(), now)
		if !isReady {
			continue
		}
		status.ReadyReplicas++
		if wait <= 0 {
			status.AvailableReplicas++
		} else if again == 0 || wait < again {
			again = wait
		}
	}
	if terminating > 0 || rs.GetStatus().GetTerminatingReplicas() > 0 {
		status.TerminatingReplicas = &terminating
	}
	status.Conditions = conditions(rs.GetStatus(), scaleErr, now)
	return status, again
}

// conditions are those of the status before, with ReplicaFailure as scaling succeeded or failed.
func conditions(before *appsv1.ReplicaSetStatus, scaleErr error, now time.Time) []*appsv1.ReplicaSetCondition {
	all := condition.Others(before.GetConditions(), podcontrol.ReplicaFailure)
	failed := (*podcontrol.Error)(nil)
	if !errors.As(scaleErr, &failed) {
		return all
	}
	// A failure that stays keeps its first message. Messages differ from attempt to attempt, and each
	// write of the status would cause the next attempt at once.
	was := condition.Find(before.GetConditions(), podcontrol.ReplicaFailure)
	if was.GetStatus() == condition.True && was.GetReason() == failed.Reason {
		return append(all, was)
	}
	return append(all, &appsv1.ReplicaSetCondition{
		Type: podcontrol.ReplicaFailure, Status: condition.True, Reason: failed.Reason, Message: apierr.Message(scaleErr),
		LastTransitionTime: timestamppb.New(now.Truncate(time.Second)),
	})
}
