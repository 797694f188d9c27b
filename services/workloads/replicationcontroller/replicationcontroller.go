// Package replicationcontroller keeps as many pods as each ReplicationController asks for. A
// ReplicationController differs from a ReplicaSet in its form alone, and the controller of
// ReplicaSets does the work.
package replicationcontroller

import (
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/workloads/replicaset"
)

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many ReplicationControllers are reconciled at once; 0 means
	// controller.DefaultWorkers.
	Workers int
	// Events records what happened to pods.
	Events *events.Recorder
	// Pods mirrors all pods, with the index of controller.ByController.
	Pods *client.Informer[*corev1.Pod]
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	replicaset.AddFor(t, replicaset.ConfigFor[*corev1.ReplicationController]{
		Name: "replicationcontroller", Workers: cfg.Workers, Events: cfg.Events, Pods: cfg.Pods,
		Sets: controller.Informer(t, client.InformerOptions[*corev1.ReplicationController]{
			Indexers: controller.ByController[*corev1.ReplicationController](),
		}),
		Spec: spec, Status: status, SetStatus: setStatus,
	})
}

// spec returns the spec of a ReplicationController as that of a ReplicaSet.
func spec(rc *corev1.ReplicationController) *appsv1.ReplicaSetSpec {
	s := rc.GetSpec()
	return &appsv1.ReplicaSetSpec{
		Replicas: s.Replicas, Selector: &metav1.LabelSelector{MatchLabels: s.GetSelector()}, Template: s.GetTemplate(),
		MinReadySeconds: s.GetMinReadySeconds(),
	}
}

// status returns the status of a ReplicationController as that of a ReplicaSet.
func status(rc *corev1.ReplicationController) *appsv1.ReplicaSetStatus {
	s := rc.GetStatus()
	as := &appsv1.ReplicaSetStatus{
		Replicas: s.GetReplicas(), FullyLabeledReplicas: s.GetFullyLabeledReplicas(), ReadyReplicas: s.GetReadyReplicas(),
		AvailableReplicas: s.GetAvailableReplicas(), ObservedGeneration: s.GetObservedGeneration(),
	}
	for _, c := range s.GetConditions() {
		as.Conditions = append(as.Conditions, &appsv1.ReplicaSetCondition{
			Type: c.GetType(), Status: c.GetStatus(), LastTransitionTime: c.GetLastTransitionTime(), Reason: c.GetReason(), Message: c.GetMessage(),
		})
	}
	return as
}

// setStatus sets the status of a ReplicationController, which does not count terminating pods.
func setStatus(rc *corev1.ReplicationController, s *appsv1.ReplicaSetStatus) {
	rc.Status = &corev1.ReplicationControllerStatus{
		Replicas: s.GetReplicas(), FullyLabeledReplicas: s.GetFullyLabeledReplicas(), ReadyReplicas: s.GetReadyReplicas(),
		AvailableReplicas: s.GetAvailableReplicas(), ObservedGeneration: s.GetObservedGeneration(),
	}
	for _, c := range s.GetConditions() {
		rc.Status.Conditions = append(rc.Status.Conditions, &corev1.ReplicationControllerCondition{
			Type: c.GetType(), Status: c.GetStatus(), LastTransitionTime: c.GetLastTransitionTime(), Reason: c.GetReason(), Message: c.GetMessage(),
		})
	}
}
