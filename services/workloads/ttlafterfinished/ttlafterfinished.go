// Package ttlafterfinished deletes Jobs some time after they have ended, as their
// ttlSecondsAfterFinished says.
package ttlafterfinished

import (
	"context"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
)

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many Jobs are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Jobs mirrors all Jobs.
	Jobs *client.Informer[*batchv1.Job]
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	c := t.Controller("ttlafterfinished", cfg.Workers, func(ctx context.Context, key controller.Key) (controller.Result, error) {
		seen, ok := cfg.Jobs.Get(key.Namespace, key.Name)
		if !ok {
			return controller.Result{}, nil
		}
		left, expires := timeLeft(seen, time.Now())
		if !expires || left > 0 {
			return controller.Result{RequeueAfter: left}, nil
		}
		return controller.Result{}, remove(ctx, t.Client(), seen)
	})
	controller.Source(c, cfg.Jobs)
	cfg.Jobs.OnChange(func(_, now *batchv1.Job) {
		if now == nil {
			return
		}
		if left, expires := timeLeft(now, time.Now()); expires {
			c.EnqueueAfter(client.KeyOf(now), left)
		}
	})
}

// timeLeft returns how long it takes until a Job is deleted, 0 or less for now, and false for one
// that has not ended or is kept.
func timeLeft(j *batchv1.Job, now time.Time) (time.Duration, bool) {
	end := batch.Finished(j)
	if end == nil || j.GetSpec().TtlSecondsAfterFinished == nil || j.GetMetadata().GetDeletionTimestamp() != nil {
		return 0, false
	}
	ttl := time.Duration(j.GetSpec().GetTtlSecondsAfterFinished()) * time.Second
	return end.GetLastTransitionTime().AsTime().Add(ttl).Sub(now), true
}

// remove deletes a Job and its pods, provided that it has not been changed: its time may have been
// prolonged.
func remove(ctx context.Context, c *client.Client, j *batchv1.Job) error {
	m := j.GetMetadata()
	_, err := client.Delete[*batchv1.Job](ctx, c, m.GetNamespace(), m.GetName(),
		client.Foreground, client.IfUID(m.GetUid()), client.IfResourceVersion(m.GetResourceVersion()))
	if err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("delete job %s: %w", m.GetName(), err)
	}
	return nil
}
