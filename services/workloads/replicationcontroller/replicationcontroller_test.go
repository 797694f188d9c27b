package replicationcontroller

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestSpecAndStatusAreThoseOfAReplicaSet(t *testing.T) {
	rc := kindtest.ReplicationController()
	rc.Spec.Selector, rc.Spec.Replicas, rc.Spec.MinReadySeconds = map[string]string{"app": "web"}, proto.Int32(3), 5
	want := kindtest.ReplicaSet().GetSpec()
	want.Replicas, want.MinReadySeconds = proto.Int32(3), 5
	if got := spec(rc); !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	set := &appsv1.ReplicaSetStatus{
		Replicas: 5, FullyLabeledReplicas: 4, ReadyReplicas: 3, AvailableReplicas: 2, ObservedGeneration: 1,
		Conditions: []*appsv1.ReplicaSetCondition{{
			Type: "ReplicaFailure", Status: "True", Reason: "FailedCreate", Message: "why", LastTransitionTime: timestamppb.New(time.Unix(7, 0)),
		}},
	}
	setStatus(rc, set)
	if got := status(rc); !proto.Equal(got, set) {
		t.Errorf("got %v, want %v", got, set)
	}
	// No write follows from pods that terminate, which the status does not count.
	before := proto.CloneOf(rc)
	set.TerminatingReplicas = proto.Int32(1)
	if setStatus(rc, set); !proto.Equal(rc.GetStatus(), before.GetStatus()) || !proto.Equal(before.GetStatus(), &corev1.ReplicationControllerStatus{
		Replicas: 5, FullyLabeledReplicas: 4, ReadyReplicas: 3, AvailableReplicas: 2, ObservedGeneration: 1, Conditions: rc.GetStatus().GetConditions(),
	}) {
		t.Errorf("got %v", rc.GetStatus())
	}
}
