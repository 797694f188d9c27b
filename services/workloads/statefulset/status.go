package statefulset

import (
	"time"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// newStatus is the status of a set in this state. It returns when the next pod becomes available, 0
// for never.
func newStatus(s state, collisions int32) (*appsv1.StatefulSetStatus, time.Duration) {
	spec := s.set.GetSpec()
	status := &appsv1.StatefulSetStatus{
		ObservedGeneration: s.set.GetMetadata().GetGeneration(), CurrentRevision: s.current.name, UpdateRevision: s.update.name,
		CollisionCount: &collisions, Conditions: condition.Others(s.set.GetStatus().GetConditions()),
	}
	var again time.Duration
	for _, p := range s.pods {
		if _, ok := ordinalOf(s.set, p); !ok {
			continue
		}
		status.Replicas++
		if p.GetMetadata().GetDeletionTimestamp() == nil {
			if revisionOf(p) == s.current.name {
				status.CurrentReplicas++
			}
			if revisionOf(p) == s.update.name {
				status.UpdatedReplicas++
			}
		}
		wait, ready := podcontrol.AvailableIn(p, spec.GetMinReadySeconds(), s.now)
		if !ready || core.IsPodFinished(p) {
			continue
		}
		status.ReadyReplicas++
		if wait <= 0 {
			status.AvailableReplicas++
		} else if again == 0 || wait < again {
			again = wait
		}
	}
	if n := spec.GetReplicas(); spec.GetUpdateStrategy().GetType() == apps.StrategyRollingUpdate &&
		status.UpdatedReplicas == n && status.ReadyReplicas == n && status.Replicas == n {
		status.CurrentReplicas, status.CurrentRevision = status.UpdatedReplicas, status.UpdateRevision
	}
	return status, again
}
