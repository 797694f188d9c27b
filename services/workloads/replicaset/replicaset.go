// Package replicaset keeps as many pods as each ReplicaSet asks for.
package replicaset

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many ReplicaSets are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Events records what happened to pods.
	Events *events.Recorder
	// ReplicaSets and Pods mirror all objects of their kinds, with the index of
	// controller.ByController.
	ReplicaSets *client.Informer[*appsv1.ReplicaSet]
	Pods        *client.Informer[*corev1.Pod]
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	r := &reconciler{
		client: t.Client(), sets: cfg.ReplicaSets,
		pods: podcontrol.New(podcontrol.Config[*appsv1.ReplicaSet]{
			Client: t.Client(), Events: cfg.Events, Owners: cfg.ReplicaSets, Pods: cfg.Pods,
			Selector: func(rs *appsv1.ReplicaSet) *metav1.LabelSelector { return rs.GetSpec().GetSelector() },
		}),
	}
	c := t.Controller("replicaset", cfg.Workers, r.reconcile)
	controller.For(c, cfg.ReplicaSets)
	r.pods.Watch(c)
}

type reconciler struct {
	client *client.Client
	sets   *client.Informer[*appsv1.ReplicaSet]
	pods   *podcontrol.Control[*appsv1.ReplicaSet]
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	rs, ok := r.sets.Get(key.Namespace, key.Name)
	if !ok {
		r.pods.Forget(key)
		return controller.Result{}, nil
	}
	owned, wait, err := r.pods.Claim(ctx, rs)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	var scaleErr error
	if rs.GetMetadata().GetDeletionTimestamp() == nil {
		scaleErr = r.scale(ctx, rs, podcontrol.Active(owned))
	}
	again, err := r.updateStatus(ctx, rs, owned, scaleErr)
	if scaleErr != nil {
		return controller.Result{}, scaleErr
	}
	return controller.Result{RequeueAfter: again}, err
}

// scale creates or deletes pods until the set has as many active ones as it asks for.
func (r *reconciler) scale(ctx context.Context, rs *appsv1.ReplicaSet, active []*corev1.Pod) error {
	want := int(rs.GetSpec().GetReplicas())
	switch {
	case len(active) < want:
		return r.pods.CreatePods(ctx, rs, want-len(active), func(int) *corev1.Pod {
			return podcontrol.FromTemplate(rs, rs.GetSpec().GetTemplate())
		})
	case len(active) > want:
		return r.pods.DeletePods(ctx, rs, podcontrol.Surplus(active, len(active)-want, r.relatedOnNodes(rs)))
	}
	return nil
}

// relatedOnNodes counts the active pods on each node that belong to the set, or to another of the
// same deployment.
func (r *reconciler) relatedOnNodes(rs *appsv1.ReplicaSet) map[string]int {
	related := []*appsv1.ReplicaSet{rs}
	if owner := kinds.ControllerOf(rs); owner != nil {
		related = controller.ControlledBy(r.sets, owner.GetUid())
	}
	onNode := map[string]int{}
	for _, set := range related {
		for _, p := range podcontrol.Active(controller.ControlledBy(r.pods.Dependents.Dependents, set.GetMetadata().GetUid())) {
			onNode[p.GetSpec().GetNodeName()]++
		}
	}
	return onNode
}

// updateStatus writes the set's status. It returns when a pod that is ready becomes available, 0
// for never.
func (r *reconciler) updateStatus(ctx context.Context, rs *appsv1.ReplicaSet, owned []*corev1.Pod, scaleErr error) (time.Duration, error) {
	status, again := newStatus(rs, owned, scaleErr, time.Now())
	if proto.Equal(status, rs.GetStatus()) {
		return again, nil
	}
	updated := client.Clone(rs)
	updated.Status = status
	_, err := client.UpdateStatus(ctx, r.client, updated)
	if apierr.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("update status: %w", err)
	}
	return again, nil
}
