// Package binding binds pods to the nodes that were chosen for them, while nodes are being chosen
// for others. It is optimistic: the pods are reserved on their nodes before, and the reservation is
// undone for those that cannot be bound.
package binding

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// MaxBatches is how many batches are being bound at once.
const MaxBatches = 4

// The pause between two attempts at a batch whose outcome is unknown.
const (
	retryMin = 50 * time.Millisecond
	retryMax = 2 * time.Second
)

// Binder binds batches of pods in the background.
type Binder struct {
	plugin  framework.BindPlugin
	log     *zap.Logger
	slots   chan struct{}
	running sync.WaitGroup
}

// New returns a binder that binds by a plug-in.
func New(plugin framework.BindPlugin, log *zap.Logger) *Binder {
	return &Binder{plugin: plugin, log: log, slots: make(chan struct{}, MaxBatches)}
}

// Bind starts to bind a batch. It waits while MaxBatches are under way, and starts nothing when ctx
// ends meanwhile. done is called once for each pod, from another goroutine, with nil when the pod
// is bound and with the reason when it cannot be. It is not called for pods that are left when ctx
// ends or the election is lost: the next leader schedules them.
func (b *Binder) Bind(ctx context.Context, batch []framework.Assignment, done func(a framework.Assignment, err error)) {
	b.start(ctx, func() { b.bind(ctx, batch, done) })
}

// BindWhole starts to bind a batch of which all pods are bound or none, as Bind does. done is
// called once, with nil when all are bound.
func (b *Binder) BindWhole(ctx context.Context, batch []framework.Assignment, done func(err error)) {
	b.start(ctx, func() {
		err := b.attempt(ctx, batch)
		if apierr.IsConflict(err) {
			// The batch was bound when the answer to an attempt before was lost.
			if bound, askErr := b.allBound(ctx, batch); askErr != nil || bound {
				err = askErr
			}
		}
		if err == nil || ctx.Err() == nil && !apierr.IsElectionLost(err) {
			done(err)
		}
	})
}

func (b *Binder) start(ctx context.Context, bind func()) {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	b.running.Go(func() {
		defer func() { <-b.slots }()
		bind()
	})
}

// allBound reports whether all pods of a batch are bound to their nodes. It asks again until there
// is an answer.
func (b *Binder) allBound(ctx context.Context, batch []framework.Assignment) (bool, error) {
	for _, a := range batch {
		pauses := backoff.Backoff{Min: retryMin, Max: retryMax}
		bound, err := b.plugin.IsBound(ctx, a)
		for apierr.IsRetryable(err) {
			if err := pauses.Wait(ctx, err); err != nil {
				return false, err
			}
			bound, err = b.plugin.IsBound(ctx, a)
		}
		if apierr.IsNotFound(err) {
			return false, nil
		}
		if err != nil || !bound {
			return false, err
		}
	}
	return true, nil
}

// Wait returns when no batch is under way.
func (b *Binder) Wait() { b.running.Wait() }

// bind binds a batch. When it is refused, because one of its pods was deleted for example, its
// halves are tried, down to the pods that cannot be bound.
func (b *Binder) bind(ctx context.Context, batch []framework.Assignment, done func(a framework.Assignment, err error)) {
	err := b.attempt(ctx, batch)
	switch {
	case err == nil:
		for _, a := range batch {
			done(a, nil)
		}
	case ctx.Err() != nil || apierr.IsElectionLost(err):
	case len(batch) > 1:
		b.bind(ctx, batch[:len(batch)/2], done)
		b.bind(ctx, batch[len(batch)/2:], done)
	default:
		done(batch[0], err)
	}
}

// attempt repeats a batch until its outcome is known. The pods stay reserved meanwhile.
func (b *Binder) attempt(ctx context.Context, batch []framework.Assignment) error {
	pauses := backoff.Backoff{Min: retryMin, Max: retryMax}
	for {
		err := b.plugin.Bind(ctx, batch)
		if !apierr.IsRetryable(err) {
			return err
		}
		b.log.Warn("Outcome of a binding unknown, trying again", zap.Int(metrics.KeyPods, len(batch)), zap.Error(err))
		if err := pauses.Wait(ctx, err); err != nil {
			return err
		}
	}
}
