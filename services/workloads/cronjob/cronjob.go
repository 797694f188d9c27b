// Package cronjob creates the Jobs of CronJobs at the times of their schedules.
//
// newPlan decides about a CronJob, from the CronJob, its Jobs and the time alone. The name of a Job
// follows from its scheduled time, so that no time has two Jobs.
package cronjob

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
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
)

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many CronJobs are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Events records what happened to CronJobs.
	Events *events.Recorder
	// CronJobs and Jobs mirror all objects of their kinds. Jobs needs the index of
	// controller.ByController.
	CronJobs *client.Informer[*batchv1.CronJob]
	Jobs     *client.Informer[*batchv1.Job]
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &reconciler{Config: cfg, client: t.Client()}
	c := t.Controller("cronjob", cfg.Workers, r.reconcile)
	controller.For(c, cfg.CronJobs)
	controller.Owned(c, cfg.Jobs, cfg.CronJobs.Kind())
}

type reconciler struct {
	Config
	client *client.Client
	// statuses and jobs are the last writes of the status of each CronJob, and of its Jobs.
	statuses, jobs controller.Written
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	c, ok := r.CronJobs.Get(key.Namespace, key.Name)
	if !ok {
		return controller.Result{}, nil
	}
	if r.statuses.IsBehind(key, c.GetMetadata().GetResourceVersion()) || r.jobs.IsBehind(key, r.Jobs.Revision()) {
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	p := newPlan(c, controller.ControlledBy(r.Jobs, c.GetMetadata().GetUid()), r.Now())
	if err := r.remove(ctx, c, p.replace); err != nil {
		return controller.Result{}, err
	}
	if p.create != nil {
		if err := r.create(ctx, c, p); err != nil {
			return controller.Result{}, err
		}
	}
	if err := r.updateStatus(ctx, c, p.status); err != nil {
		return controller.Result{}, err
	}
	if err := r.remove(ctx, c, p.clean); err != nil {
		return controller.Result{}, err
	}
	for _, e := range p.events {
		r.Events.Event(c, e.typ, e.reason, "%s", e.message)
	}
	return controller.Result{RequeueAfter: p.again}, nil
}

// remove deletes Jobs with their pods.
func (r *reconciler) remove(ctx context.Context, c *batchv1.CronJob, jobs []*batchv1.Job) error {
	for _, j := range jobs {
		m := j.GetMetadata()
		_, err := client.Delete[*batchv1.Job](ctx, r.client, m.GetNamespace(), m.GetName(), client.Background, client.IfUID(m.GetUid()))
		switch {
		case apierr.IsNotFound(err):
		case err != nil:
			r.Events.Event(c, events.Warning, "FailedDelete", "Deleted job: %s", apierr.Message(err))
			return fmt.Errorf("delete job %s: %w", m.GetName(), err)
		default:
			r.Events.Event(c, events.Normal, "SuccessfulDelete", "Deleted job %s", m.GetName())
		}
	}
	return nil
}

// create creates the planned Job and notes it in the new status. A Job that exists and is the
// CronJob's was created before, when the status could not be written.
func (r *reconciler) create(ctx context.Context, c *batchv1.CronJob, p *plan) error {
	m := p.create.GetMetadata()
	j, err := client.Create(ctx, r.client, p.create)
	switch {
	case apierr.IsAlreadyExists(err):
		if j, err = client.Get[*batchv1.Job](ctx, r.client, m.GetNamespace(), m.GetName()); err != nil {
			return fmt.Errorf("read the job that exists already: %w", err)
		}
		if !kinds.IsControlledBy(j, c) {
			return nil
		}
	case err != nil:
		r.Events.Event(c, events.Warning, "FailedCreate", "Error creating job: %s", apierr.Message(err))
		return fmt.Errorf("create job %s: %w", m.GetName(), err)
	default:
		r.Events.Event(c, events.Normal, "SuccessfulCreate", "Created job %s", m.GetName())
	}
	r.jobs.Note(client.KeyOf(c), j.GetMetadata().GetResourceVersion())
	started(p.status, events.ReferenceTo(j), p.scheduled)
	return nil
}

func (r *reconciler) updateStatus(ctx context.Context, c *batchv1.CronJob, status *batchv1.CronJobStatus) error {
	before := c.GetStatus()
	if before == nil {
		before = &batchv1.CronJobStatus{}
	}
	if proto.Equal(status, before) {
		return nil
	}
	updated := client.Clone(c)
	updated.Status = status
	stored, err := client.UpdateStatus(ctx, r.client, updated)
	if apierr.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update status: %w", err)
	}
	r.statuses.Note(client.KeyOf(c), stored.GetMetadata().GetResourceVersion())
	return nil
}
