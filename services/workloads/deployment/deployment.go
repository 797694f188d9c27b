// Package deployment moves each Deployment to the ReplicaSet of its template.
//
// plan.go is the arithmetic of a rollout and touches nothing. rollout.go reads the sets, asks it
// for the next step and takes the step; current.go creates the set of the template, revision.go
// numbers the sets and deletes old ones, status.go computes the status.
package deployment

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many Deployments are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Events records what happened to ReplicaSets.
	Events *events.Recorder
	// ReplicaSets and Pods mirror all objects of their kinds, with the index of
	// controller.ByController.
	ReplicaSets *client.Informer[*appsv1.ReplicaSet]
	Pods        *client.Informer[*corev1.Pod]
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	deployments := controller.Informer(t, client.InformerOptions[*appsv1.Deployment]{})
	r := &reconciler{
		client: t.Client(), deployments: deployments, pods: cfg.Pods, events: cfg.Events,
		sets: controller.NewDependents(controller.DependentsConfig[*appsv1.Deployment, *appsv1.ReplicaSet]{
			Client: t.Client(), Owners: deployments, Dependents: cfg.ReplicaSets,
			Selector: func(d *appsv1.Deployment) *metav1.LabelSelector { return d.GetSpec().GetSelector() },
		}),
	}
	c := t.Controller("deployment", cfg.Workers, r.reconcile)
	controller.For(c, deployments)
	r.sets.Watch(c)
}

type reconciler struct {
	client      *client.Client
	deployments *client.Informer[*appsv1.Deployment]
	sets        *controller.Dependents[*appsv1.Deployment, *appsv1.ReplicaSet]
	pods        *client.Informer[*corev1.Pod]
	events      *events.Recorder
}

func (c *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	d, ok := c.deployments.Get(key.Namespace, key.Name)
	if !ok {
		c.sets.Forget(key)
		return controller.Result{}, nil
	}
	sets, wait, err := c.sets.Claim(ctx, d)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	r, err := newRollout(d, sets)
	if err != nil {
		return controller.Result{}, err
	}
	var failed error
	if d.GetMetadata().GetDeletionTimestamp() == nil {
		// When a set cannot be created, the status is written all the same: it has the reason.
		if failed = c.advance(ctx, r); failed != nil && r.createError == "" {
			return controller.Result{}, failed
		}
	}
	again, err := c.updateStatus(ctx, r)
	if failed != nil {
		return controller.Result{}, failed
	}
	return controller.Result{RequeueAfter: again}, err
}

func (c *reconciler) updateStatus(ctx context.Context, r *rollout) (time.Duration, error) {
	status, again := newStatus(r, time.Now())
	if proto.Equal(status, r.d.GetStatus()) {
		return again, nil
	}
	updated := client.Clone(r.d)
	updated.Status = status
	_, err := client.UpdateStatus(ctx, c.client, updated)
	if apierr.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("update status: %w", err)
	}
	return again, nil
}
