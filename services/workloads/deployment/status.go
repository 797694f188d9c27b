package deployment

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
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

// noDeadline is the value of progressDeadlineSeconds for none, as in Kubernetes.
const noDeadline = 1<<31 - 1

// complete reports whether all pods are available ones of the current template.
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
	return s.GetReplicas() == r.limits.replicas && s.GetAvailableReplicas() == r.limits.replicas &&
		s.GetObservedGeneration() >= r.current.GetMetadata().GetGeneration()
}

// newStatus is the status of a deployment with these sets. It returns when the progress deadline
// passes, 0 for never.
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

	s.Conditions = append(s.Conditions, withTimes(before, availability(r, s), now))
	progressing, again := progress(r, s, now)
	if progressing != nil {
		s.Conditions = append(s.Conditions, withTimes(before, progressing, now))
	}
	if failure := replicaFailure(r); failure != nil {
		s.Conditions = append(s.Conditions, withTimes(before, failure, now))
	}
	s.Conditions = append(s.Conditions, condition.Others(before.GetConditions(),
		apps.DeploymentAvailable, apps.DeploymentProgressing, apps.DeploymentReplicaFailure)...)
	return s, again
}

func newCondition(typ, status, reason, message string) *appsv1.DeploymentCondition {
	return &appsv1.DeploymentCondition{Type: typ, Status: status, Reason: reason, Message: message}
}

// availability is the Available condition of a status with these counts.
func availability(r *rollout, s *appsv1.DeploymentStatus) *appsv1.DeploymentCondition {
	if s.GetAvailableReplicas() < r.limits.replicas-r.limits.maxUnavailable {
		return newCondition(apps.DeploymentAvailable, condition.False, reasonUnavailable, "Deployment does not have minimum availability.")
	}
	return newCondition(apps.DeploymentAvailable, condition.True, reasonAvailable, "Deployment has minimum availability.")
}

// replicaFailure is the ReplicaFailure condition of the first set that has one, nil when none has.
func replicaFailure(r *rollout) *appsv1.DeploymentCondition {
	for _, rs := range r.all() {
		c := condition.Find(rs.GetStatus().GetConditions(), podcontrol.ReplicaFailure)
		if c.GetStatus() == condition.True {
			return newCondition(apps.DeploymentReplicaFailure, condition.True, c.GetReason(), c.GetMessage())
		}
	}
	return nil
}

// progress decides the Progressing condition. A rollout that progressed since the last status has
// it; one that has not for longer than the deadline has failed, until it progresses again. It
// returns when the deadline passes, 0 for never.
func progress(r *rollout, s *appsv1.DeploymentStatus, now time.Time) (*appsv1.DeploymentCondition, time.Duration) {
	const typ = apps.DeploymentProgressing
	before := r.d.GetStatus()
	was := condition.Find(before.GetConditions(), typ)
	name := r.current.GetMetadata().GetName()
	updated := func(c *appsv1.DeploymentCondition) *appsv1.DeploymentCondition {
		c.LastUpdateTime = timestamppb.New(now.Truncate(time.Second))
		return c
	}
	switch {
	case r.createError != "":
		return newCondition(typ, condition.False, reasonCreateError, r.createError), 0
	case r.d.GetSpec().GetPaused() && was.GetReason() == reasonDeadlineExceeded:
		return was, 0 // A pause does not hide the failure.
	case r.d.GetSpec().GetPaused():
		return newCondition(typ, condition.Unknown, reasonPaused, "Deployment is paused"), 0
	case r.current == nil:
		return was, 0
	case complete(r):
		message := fmt.Sprintf("ReplicaSet %q has successfully progressed.", name)
		return newCondition(typ, condition.True, reasonComplete, message), 0
	case was == nil:
		was = updated(newCondition(typ, condition.True, reasonNewSet, fmt.Sprintf("Created new replica set %q", name)))
	case was.GetReason() == reasonPaused:
		was = updated(newCondition(typ, condition.Unknown, reasonResumed, "Deployment is resumed"))
	case was.GetReason() == reasonComplete && s.GetReplicas() == s.GetUpdatedReplicas() && sameSet(was, name):
		return was, 0 // A complete rollout does not start again because a pod is lost, or the deployment resized.
	case moved(before, s) || was.GetReason() == reasonComplete || before.GetObservedGeneration() != s.GetObservedGeneration():
		message := fmt.Sprintf("ReplicaSet %q is progressing.", name)
		return updated(newCondition(typ, condition.True, reasonSetUpdated, message)), deadline(r)
	}
	if was.GetReason() == reasonDeadlineExceeded || deadline(r) == 0 {
		return was, 0
	}
	left := was.GetLastUpdateTime().AsTime().Add(deadline(r)).Sub(now)
	if left <= 0 {
		message := fmt.Sprintf("ReplicaSet %q has timed out progressing.", name)
		return newCondition(typ, condition.False, reasonDeadlineExceeded, message), 0
	}
	return was, left
}

// sameSet reports whether a condition's message names this set.
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

// moved reports whether the rollout progressed.
func moved(before, after *appsv1.DeploymentStatus) bool {
	oldBefore := before.GetReplicas() - before.GetUpdatedReplicas()
	oldAfter := after.GetReplicas() - after.GetUpdatedReplicas()
	return after.GetUpdatedReplicas() > before.GetUpdatedReplicas() || oldAfter < oldBefore ||
		after.GetReadyReplicas() > before.GetReadyReplicas() || after.GetAvailableReplicas() > before.GetAvailableReplicas()
}

// withTimes sets the times of a condition: those of the condition before, as far as it was the
// same.
func withTimes(before *appsv1.DeploymentStatus, c *appsv1.DeploymentCondition, now time.Time) *appsv1.DeploymentCondition {
	was := condition.Find(before.GetConditions(), c.GetType())
	if c == was {
		return was
	}
	if c.LastUpdateTime == nil {
		c.LastUpdateTime = timestamppb.New(now.Truncate(time.Second))
		if was.GetReason() == c.GetReason() && was.GetStatus() == c.GetStatus() && was.GetMessage() == c.GetMessage() {
			c.LastUpdateTime = was.GetLastUpdateTime()
		}
	}
	c.LastTransitionTime = condition.Since(before.GetConditions(), c.GetType(), c.GetStatus(), now)
	return c
}
