package deployment

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// rolling is a deployment of two with a new set that has so many pods, of which so many are
// available, while the old set has the rest.
func rolling(before *appsv1.DeploymentStatus, updated, available int32) *rollout {
	two := int32(2)
	return &rollout{
		limits: limits{replicas: 2, maxSurge: 1},
		d: &appsv1.Deployment{Metadata: &metav1.ObjectMeta{Name: "web", Generation: 1}, Status: before,
			Spec: &appsv1.DeploymentSpec{Replicas: &two, ProgressDeadlineSeconds: proto.Int32(60)}},
		current: &appsv1.ReplicaSet{Metadata: &metav1.ObjectMeta{Name: "web-new"}, Spec: &appsv1.ReplicaSetSpec{Replicas: &two},
			Status: &appsv1.ReplicaSetStatus{Replicas: updated, ReadyReplicas: available, AvailableReplicas: available}},
		old: []*appsv1.ReplicaSet{{Metadata: &metav1.ObjectMeta{Name: "web-old"}, Spec: &appsv1.ReplicaSetSpec{Replicas: proto.Int32(2 - updated)},
			Status: &appsv1.ReplicaSetStatus{Replicas: 2 - updated, ReadyReplicas: 2 - updated, AvailableReplicas: 2 - updated}}},
	}
}

// TestProgress plays a rollout and looks at its Progressing condition.
func TestProgress(t *testing.T) {
	var status *appsv1.DeploymentStatus
	for _, step := range []struct {
		name               string
		at                 time.Duration
		updated, available int32
		change             func(*rollout)
		want               string // status and reason
		again              time.Duration
	}{
		{"it begins", 0, 0, 0, nil, "True NewReplicaSetCreated", 60 * time.Second},
		{"nothing happens", 20 * time.Second, 0, 0, nil, "True NewReplicaSetCreated", 40 * time.Second},
		{"a pod more", 50 * time.Second, 1, 0, nil, "True ReplicaSetUpdated", 60 * time.Second},
		{"nothing happens again", 109 * time.Second, 1, 0, nil, "True ReplicaSetUpdated", time.Second},
		{"the deadline passes", 110 * time.Second, 1, 0, nil, "False ProgressDeadlineExceeded", 0},
		{"it stays failed", 500 * time.Second, 1, 0, nil, "False ProgressDeadlineExceeded", 0},
		{"and pausing does not hide it", 501 * time.Second, 1, 0, func(r *rollout) { r.d.Spec.Paused = true }, "False ProgressDeadlineExceeded", 0},
		{"until it moves", 600 * time.Second, 1, 1, nil, "True ReplicaSetUpdated", 60 * time.Second},
		{"it is paused", 601 * time.Second, 1, 1, func(r *rollout) { r.d.Spec.Paused = true }, "Unknown DeploymentPaused", 0},
		{"a pause has no deadline", 900 * time.Second, 1, 1, func(r *rollout) { r.d.Spec.Paused = true }, "Unknown DeploymentPaused", 0},
		{"it is resumed", 901 * time.Second, 1, 1, nil, "Unknown DeploymentResumed", 60 * time.Second},
		{"all there", 902 * time.Second, 2, 2, nil, "True NewReplicaSetAvailable", 0},
		{"one is lost", 903 * time.Second, 2, 1, nil, "True NewReplicaSetAvailable", 0},
		{"for long", 2000 * time.Second, 2, 1, nil, "True NewReplicaSetAvailable", 0},
		{"another template", 2001 * time.Second, 0, 0, func(r *rollout) { r.current.Metadata.Name, r.d.Metadata.Generation = "web-newer", 2 }, "True ReplicaSetUpdated", 60 * time.Second},
		{"its set cannot be made", 2002 * time.Second, 0, 0, func(r *rollout) { r.current, r.createError, r.d.Metadata.Generation = nil, "no", 2 }, "False ReplicaSetCreateError", 0},
		{"no deadline", 9000 * time.Second, 0, 0, func(r *rollout) {
			r.d.Metadata.Generation, r.d.Spec.ProgressDeadlineSeconds = 3, proto.Int32(noDeadline)
		}, "True ReplicaSetUpdated", 0},
	} {
		r := rolling(status, step.updated, step.available)
		if step.change != nil {
			step.change(r)
		}
		now := epoch.Add(step.at)
		next, again := newStatus(r, now)
		c := condition.Find(next.GetConditions(), apps.DeploymentProgressing)
		if got := c.GetStatus() + " " + c.GetReason(); got != step.want || again != step.again {
			t.Errorf("%s: %s, again in %v; want %s, %v", step.name, got, again, step.want, step.again)
		}
		// The same again changes nothing, or it would be written for ever.
		r.d.Status = next
		if same, _ := newStatus(r, now.Add(500*time.Millisecond)); !proto.Equal(next, same) {
			t.Errorf("%s: looked at again the status changes from %v to %v", step.name, next, same)
		}
		status = next
	}
}

func TestDeploymentStatus(t *testing.T) {
	r := rolling(&appsv1.DeploymentStatus{CollisionCount: proto.Int32(3), Conditions: []*appsv1.DeploymentCondition{{Type: "Theirs", Status: "True"}}}, 1, 1)
	r.old[0].Status.TerminatingReplicas = proto.Int32(1)
	r.old[0].Status.Conditions = []*appsv1.ReplicaSetCondition{{Type: apps.DeploymentReplicaFailure, Status: "True", Reason: "FailedCreate", Message: "why"}}
	s, _ := newStatus(r, epoch)
	var types []string
	for _, c := range s.GetConditions() {
		types = append(types, c.GetType()+"="+c.GetStatus())
	}
	if got, want := strings.Join(types, " "), "Available=True Progressing=True ReplicaFailure=True Theirs=True"; got != want {
		t.Errorf("conditions %s, want %s", got, want)
	}
	if s.GetReplicas() != 2 || s.GetUpdatedReplicas() != 1 || s.GetAvailableReplicas() != 2 || s.GetUnavailableReplicas() != 1 || s.GetTerminatingReplicas() != 1 || s.GetCollisionCount() != 3 {
		t.Errorf("got %v", s)
	}
	d := &appsv1.Deployment{Spec: &appsv1.DeploymentSpec{Replicas: proto.Int32(3), Strategy: &appsv1.DeploymentStrategy{Type: apps.StrategyRecreate}}}
	if l, err := limitsOf(d); err != nil || l != (limits{replicas: 3}) {
		t.Errorf("limits of Recreate: %+v, %v; none of its pods may be missing", l, err)
	}
}
