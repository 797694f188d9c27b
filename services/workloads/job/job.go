// Package job runs the pods of each Job until enough have succeeded, or too many have failed.
//
// A pod of a Job holds a finalizer until it is counted. One transaction stores the counters and
// takes the finalizer from the pods that they count, so that each pod is counted once, whatever
// fails. newPlan decides about a Job, from the Job, its pods and the time alone.
package job

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many Jobs are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Events records what happened to Jobs and their pods.
	Events *events.Recorder
	// Jobs and Pods mirror all objects of their kinds. Pods needs the index of
	// controller.ByController.
	Jobs *client.Informer[*batchv1.Job]
	Pods *client.Informer[*corev1.Pod]
}

// Add adds the controller to a term, which runs it, and a second one that takes the finalizer from
// pods whose Job does not count them any more.
func Add(t *controller.Term, cfg Config) {
	r := &reconciler{
		client: t.Client(), jobs: cfg.Jobs, events: cfg.Events,
		pods: podcontrol.New(podcontrol.Config[*batchv1.Job]{
			Client: t.Client(), Events: cfg.Events, Owners: cfg.Jobs, Pods: cfg.Pods,
			Selector:  func(j *batchv1.Job) *metav1.LabelSelector { return j.GetSpec().GetSelector() },
			Claimable: func(*corev1.Pod) bool { return true },
			Unchanged: true,
			Finalizer: batch.FinalizerTracking,
		}),
	}
	c := t.Controller("job", cfg.Workers, r.reconcile)
	controller.For(c, cfg.Jobs)
	r.pods.Watch(c)
	addFinalizers(t, cfg)
}

type reconciler struct {
	client *client.Client
	jobs   *client.Informer[*batchv1.Job]
	pods   *podcontrol.Control[*batchv1.Job]
	events *events.Recorder
	// statuses and releases are the last writes of the status of each Job, and of its pods'
	// finalizers.
	statuses, releases controller.Written
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	j, ok := r.jobs.Get(key.Namespace, key.Name)
	if !ok {
		r.pods.Forget(key)
		return controller.Result{}, nil
	}
	if !isOurs(j) || batch.Finished(j) != nil {
		return controller.Result{}, nil
	}
	if r.statuses.IsBehind(key, j.GetMetadata().GetResourceVersion()) || r.releases.IsBehind(key, r.pods.Dependents.Dependents.Revision()) {
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	pods, wait, err := r.pods.Claim(ctx, j)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	p := newPlan(j, pods, time.Now())
	failure := r.change(ctx, j, p)
	if apierr.IsConditionFailed(failure) {
		// The Job has changed, by a write whose answer was lost, or by others.
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	if failure != nil && len(p.create) == 0 {
		// The counters must not be those of a Job without pods that it still has.
		return controller.Result{}, failure
	}
	switch err := r.write(ctx, j, p); {
	case apierr.IsNotFound(err), apierr.IsBadRequest(err) && !apierr.IsInvalid(err):
		// The informers do not show yet that the Job or a pod is gone, or that a pod has lost the
		// finalizer.
		return controller.Result{RequeueAfter: controller.WrittenPause}, failure
	case err != nil:
		return controller.Result{}, err
	}
	if len(p.end) > 0 {
		failure = r.pods.DeletePods(ctx, j, p.end)
	}
	return controller.Result{RequeueAfter: p.again}, failure
}

// isOurs reports whether this controller works on a Job.
func isOurs(j *batchv1.Job) bool {
	return j.GetSpec().ManagedBy == nil || j.GetSpec().GetManagedBy() == batch.JobController
}

// change creates or removes pods. When not all could be created, the status does not count them;
// the events of those that were bring the Job back.
func (r *reconciler) change(ctx context.Context, j *batchv1.Job, p *plan) error {
	if len(p.create) > 0 {
		err := r.pods.CreatePods(ctx, j, len(p.create), func(i int) *corev1.Pod { return p.create[i].build(j) })
		if err != nil {
			p.status.Active -= int32(len(p.create))
		}
		return err
	}
	var tracked []*corev1.Pod
	for _, pod := range p.remove {
		if isTracked(pod) {
			tracked = append(tracked, pod)
		}
	}
	for some := range slices.Chunk(tracked, maxReleases) {
		if _, err := client.Transact(ctx, r.client, releases(some)...); err != nil {
			return fmt.Errorf("release pods that are not needed: %w", err)
		}
	}
	return r.pods.DeletePods(ctx, j, p.remove)
}

// write stores the status and releases the pods that it counts, in one transaction.
func (r *reconciler) write(ctx context.Context, j *batchv1.Job, p *plan) error {
	if len(p.release) == 0 && proto.Equal(p.status, j.GetStatus()) {
		return nil
	}
	updated := client.Clone(j)
	updated.Status = p.status
	result, err := client.Transact(ctx, r.client, append(releases(p.release), client.OpUpdateStatus(updated))...)
	if err != nil {
		return fmt.Errorf("count pods: %w", err)
	}
	r.statuses.Note(client.KeyOf(j), result.Revision)
	if len(p.release) > 0 {
		r.releases.Note(client.KeyOf(j), result.Revision)
	}
	for _, e := range p.events {
		r.events.Event(j, e.typ, e.reason, "%s", e.message)
	}
	return nil
}

// releases are the operations that take the finalizer from pods. One that has lost it since fails,
// and the transaction with it.
func releases(pods []*corev1.Pod) []client.Operation {
	ops := make([]client.Operation, len(pods))
	for i, pod := range pods {
		ops[i] = releaseOf(pod)
	}
	return ops
}
