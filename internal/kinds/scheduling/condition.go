package scheduling

import (
	"time"

	"github.com/xebec-project/xebec/internal/condition"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
)

// Reasons of the condition PodGroupScheduled.
const (
	GroupScheduled     = "Scheduled"
	GroupUnschedulable = "Unschedulable"
	// GroupSchedulerError means that the group has nodes and could not be bound to them.
	GroupSchedulerError = "SchedulerError"
)

// SetPodGroupScheduled sets the condition PodGroupScheduled. It reports whether that changes
// anything. A group that was scheduled once stays scheduled.
func SetPodGroupScheduled(g *schedulingv1alpha2.PodGroup, status, reason, message string, now time.Time) bool {
	all := g.GetStatus().GetConditions()
	set := &metav1.Condition{
		Type: PodGroupScheduled, Status: status, Reason: reason, Message: message, ObservedGeneration: g.GetMetadata().GetGeneration(),
		LastTransitionTime: condition.Since(all, PodGroupScheduled, status, now),
	}
	was := condition.Find(all, PodGroupScheduled)
	switch {
	case was == nil:
	case was.GetStatus() == condition.True && status != condition.True:
		return false
	case was.GetStatus() == status && was.GetReason() == reason && was.GetMessage() == message &&
		was.GetObservedGeneration() == set.GetObservedGeneration():
		return false
	}
	if g.Status == nil {
		g.Status = &schedulingv1alpha2.PodGroupStatus{}
	}
	g.Status.Conditions = append(condition.Others(all, PodGroupScheduled), set)
	return true
}
