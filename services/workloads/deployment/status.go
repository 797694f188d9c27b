package deployment

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

// Reasons of a deployment's conditions, as Kubernetes names them.
const (
	reasonAvailable        = "MinimumReplicasAvailable"
	reasonUnavailable      = "MinimumReplicasUnavailable"
	reasonNewSet           = "NewReplicaSetCreated"
	reasonCreateError      = "ReplicaSetCreateError"
	reasonSetUpdated       = "ReplicaSetUpdated"
	reasonComplete         = "NewReplicaSetAvailable"
	reasonDeadlineExceeded = "ProgressDeadlineExceeded"
	reasonPaused           = "DeploymentPaused"
	reasonResumed          = "DeploymentResumed"
)

// noDeadline is the progressDeadlineSeconds that stands for none, as Kubernetes has it.
const noDeadline = 1<<31 - 1

// complete reports whether every pod is of the present template, available, and no other is left.
func complete(r *rollout) bool {
	if r.current == nil {
		return false
	}
	for _, rs := range r.old {
		if rs.GetStatus().GetReplicas() > 0 || rs.GetSpec().GetReplicas() > 0 {
			return false
		}
	}
	s := r.current.GetStatus()
	return s.GetReplicas() == r.limits.replicas && s.GetAvailableReplicas() == r.limits.replicas && s.GetObservedGeneration() >= r.current.GetMetadata().GetGeneration()
}

// deploymentStatus is what the sets come to, with conditions carried on from the present status. It returns when the
// progress deadline would pass, 0 for never.
func newStatus(r *rollout, now time.Time) (*appsv1.DeploymentStatus, time.Duration) {
	before := r.d.GetStatus()
	s := &appsv1.DeploymentStatus{ObservedGeneration: r.d.GetMetadata().GetGeneration()}
	if before != nil {
		s.CollisionCount = before.CollisionCount
	}
	for _, rs := range r.all() {
		s.Replicas += rs.GetStatus().GetReplicas()
		s.ReadyReplicas += rs.GetStatus().GetReadyReplicas()
		s.AvailableReplicas += rs.GetStatus().GetAvailableReplicas()
	}
	for _, rs := range r.all() {
		if status := rs.GetStatus(); status != nil && status.TerminatingReplicas != nil {
			s.TerminatingReplicas = new(s.GetTerminatingReplicas() + status.GetTerminatingReplicas())
		}
	}
	s.UpdatedReplicas = r.current.GetStatus().GetReplicas()
	var wanted int32
	for _, rs := range r.all() {
		wanted += rs.GetSpec().GetReplicas()
	}
	s.UnavailableReplicas = max(wanted-s.AvailableReplicas, 0)

	available := &appsv1.DeploymentCondition{Type: kind.DeploymentAvailable, Status: "True", Reason: reasonAvailable, Message: "Deployment has minimum availability."}
	if s.AvailableReplicas < r.limits.replicas-r.limits.maxUnavailable {
		available = &appsv1.DeploymentCondition{Type: kind.DeploymentAvailable, Status: "False", Reason: reasonUnavailable, Message: "Deployment does not have minimum availability."}
	}
	s.Conditions = append(s.Conditions, carry(before, available, now))

	progressing, again := progress(r, s, now)
	if progressing != nil {
		s.Conditions = append(s.Conditions, carry(before, progressing, now))
	}
	for _, rs := range r.all() {
		for _, c := range rs.GetStatus().GetConditions() {
			if c.GetType() == kind.DeploymentReplicaFailure && c.GetStatus() == "True" {
				failure := &appsv1.DeploymentCondition{Type: kind.DeploymentReplicaFailure, Status: "True", Reason: c.GetReason(), Message: c.GetMessage()}
				s.Conditions = append(s.Conditions, carry(before, failure, now))
				return withOthers(s, before), again
			}
		}
	}
	return withOthers(s, before), again
}

// withOthers keeps the conditions that somebody else has added.
func withOthers(s, before *appsv1.DeploymentStatus) *appsv1.DeploymentStatus {
	for _, c := range before.GetConditions() {
		switch c.GetType() {
		case kind.DeploymentAvailable, kind.DeploymentProgressing, kind.DeploymentReplicaFailure:
		default:
			s.Conditions = append(s.Conditions, c)
		}
	}
	return s
}

// progress decides the Progressing condition. A rollout that has moved since the last status counts as progressing; one
// that has not for longer than the deadline has failed, until it moves again.
func progress(r *rollout, s *appsv1.DeploymentStatus, now time.Time) (*appsv1.DeploymentCondition, time.Duration) {
	before := r.d.GetStatus()
	was := condition(before, kind.DeploymentProgressing)
	name := r.current.GetMetadata().GetName()
	switch {
	case r.createError != "":
		return &appsv1.DeploymentCondition{Type: kind.DeploymentProgressing, Status: "False", Reason: reasonCreateError, Message: r.createError}, 0
	case r.d.GetSpec().GetPaused() && was.GetReason() == reasonDeadlineExceeded:
		return was, 0 // a failure stays to be seen
	case r.d.GetSpec().GetPaused():
		return &appsv1.DeploymentCondition{Type: kind.DeploymentProgressing, Status: "Unknown", Reason: reasonPaused, Message: "Deployment is paused"}, 0
	case r.current == nil:
		return was, 0
	case complete(r):
		return &appsv1.DeploymentCondition{Type: kind.DeploymentProgressing, Status: "True", Reason: reasonComplete, Message: fmt.Sprintf("ReplicaSet %q has successfully progressed.", name)}, 0
	case was == nil:
		was = &appsv1.DeploymentCondition{Type: kind.DeploymentProgressing, Status: "True", Reason: reasonNewSet, Message: fmt.Sprintf("Created new replica set %q", name), LastUpdateTime: timestamppb.New(now.Truncate(time.Second))}
	case was.GetReason() == reasonPaused:
		was = &appsv1.DeploymentCondition{Type: kind.DeploymentProgressing, Status: "Unknown", Reason: reasonResumed, Message: "Deployment is resumed", LastUpdateTime: timestamppb.New(now.Truncate(time.Second))}
	case was.GetReason() == reasonComplete && s.GetReplicas() == s.GetUpdatedReplicas() && sameSet(was, name):
		return was, 0 // a rollout that is over does not begin anew because a pod is lost, or the deployment resized
	case moved(before, s) || was.GetReason() == reasonComplete || before.GetObservedGeneration() != s.GetObservedGeneration():
		return &appsv1.DeploymentCondition{Type: kind.DeploymentProgressing, Status: "True", Reason: reasonSetUpdated, Message: fmt.Sprintf("ReplicaSet %q is progressing.", name), LastUpdateTime: timestamppb.New(now.Truncate(time.Second))}, deadline(r)
	}
	if was.GetReason() == reasonDeadlineExceeded {
		return was, 0
	}
	left := was.GetLastUpdateTime().AsTime().Add(deadline(r)).Sub(now)
	if deadline(r) == 0 {
		return was, 0
	}
	if left <= 0 {
		return &appsv1.DeploymentCondition{Type: kind.DeploymentProgressing, Status: "False", Reason: reasonDeadlineExceeded, Message: fmt.Sprintf("ReplicaSet %q has timed out progressing.", name)}, 0
	}
	return was, left
}

// sameSet reports whether a condition speaks of the set of this name.
func sameSet(c *appsv1.DeploymentCondition, name string) bool {
	return strings.Contains(c.GetMessage(), strconv.Quote(name))
}

// deadline is the progress deadline, 0 for none.
func deadline(r *rollout) time.Duration {
	seconds := r.d.GetSpec().GetProgressDeadlineSeconds()
	if seconds == noDeadline {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// moved reports whether the rollout came closer to its end.
func moved(before, after *appsv1.DeploymentStatus) bool {
	oldBefore := before.GetReplicas() - before.GetUpdatedReplicas()
	oldAfter := after.GetReplicas() - after.GetUpdatedReplicas()
	return after.GetUpdatedReplicas() > before.GetUpdatedReplicas() || oldAfter < oldBefore ||
		after.GetReadyReplicas() > before.GetReadyReplicas() || after.GetAvailableReplicas() > before.GetAvailableReplicas()
}

func condition(s *appsv1.DeploymentStatus, name string) *appsv1.DeploymentCondition {
	for _, c := range s.GetConditions() {
		if c.GetType() == name {
			return c
		}
	}
	return nil
}

// carry completes a condition's times: one that says what it said before keeps them.
func carry(before *appsv1.DeploymentStatus, c *appsv1.DeploymentCondition, now time.Time) *appsv1.DeploymentCondition {
	second := timestamppb.New(now.Truncate(time.Second))
	was := condition(before, c.GetType())
	if c == was {
		return was
	}
	if c.LastUpdateTime == nil {
		c.LastUpdateTime = second
		if was.GetReason() == c.GetReason() && was.GetStatus() == c.GetStatus() && was.GetMessage() == c.GetMessage() {
			c.LastUpdateTime = was.GetLastUpdateTime()
		}
	}
	c.LastTransitionTime = second
	if was.GetStatus() == c.GetStatus() {
		c.LastTransitionTime = was.GetLastTransitionTime()
	}
	return c
}
