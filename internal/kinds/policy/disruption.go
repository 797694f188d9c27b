package policy

import (
	"time"

	"github.com/xebec-project/xebec/internal/condition"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// DisruptionAllowed is the condition of a budget that says whether a pod may be evicted.
const DisruptionAllowed = "DisruptionAllowed"

// Reasons of the condition DisruptionAllowed.
const (
	SufficientPods   = "SufficientPods"
	InsufficientPods = "InsufficientPods"
	// SyncFailed means that the rest of the status could not be computed.
	SyncFailed = "SyncFailed"
)

// AlwaysAllow is the unhealthyPodEvictionPolicy by which pods that are not ready may be evicted
// whatever the budget allows.
const AlwaysAllow = "AlwaysAllow"

// SetDisruptionAllowed sets the condition DisruptionAllowed to what disruptionsAllowed says.
func SetDisruptionAllowed(s *policyv1.PodDisruptionBudgetStatus, now time.Time) {
	if s.GetDisruptionsAllowed() > 0 {
		SetCondition(s, condition.True, SufficientPods, "", now)
	} else {
		SetCondition(s, condition.False, InsufficientPods, "", now)
	}
}

// SetCondition sets the condition DisruptionAllowed.
func SetCondition(s *policyv1.PodDisruptionBudgetStatus, status, reason, message string, now time.Time) {
	set := &metav1.Condition{
		Type: DisruptionAllowed, Status: status, Reason: reason, Message: message, ObservedGeneration: s.GetObservedGeneration(),
		LastTransitionTime: condition.Since(s.GetConditions(), DisruptionAllowed, status, now),
	}
	for i, c := range s.GetConditions() {
		if c.GetType() == DisruptionAllowed {
			s.Conditions[i] = set
			return
		}
	}
	s.Conditions = append(s.Conditions, set)
}
