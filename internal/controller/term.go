package controller

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/metrics"
)

// Runner is what a term runs besides controllers before they start: an informer, for one.
type Runner interface {
	// Run works until ctx ends. Returning sooner ends the term.
	Run(ctx context.Context) error
	// WaitForSync returns when controllers may rely on it, or with ctx's error.
	WaitForSync(ctx context.Context) error
}

// Term is one period of leadership. Config.Setup fills it with informers, controllers and tasks; then it runs them
// until the leadership ends. It is not used again.
type Term struct {
	ctx         context.Context
	end         context.CancelCauseFunc
	client      *client.Client
	log         *zap.Logger
	vectors     *vectors
	runners     []Runner
	tasks       []task
	controllers []*Controller
}

type task struct {
	name string
	run  func(context.Context) error
}

// Client returns a client whose writes happen only while this term lasts.
func (t *Term) Client() *client.Client { return t.client }

// Logger returns the group's logger.
func (t *Term) Logger() *zap.Logger { return t.log }

// Add makes the term run r and wait for it to sync before any controller or task starts.
func (t *Term) Add(r Runner) { t.runners = append(t.runners, r) }

// Go makes the term run a task of its own beside the controllers, once the informers have synced. Its error ends the
// term, its return without one does not.
func (t *Term) Go(name string, run func(ctx context.Context) error) {
	t.tasks = append(t.tasks, task{name, run})
}

// Controller adds a reconcile loop with so many workers; 0 means DefaultWorkers. Names are unique within a service.
func (t *Term) Controller(name string, workers int, reconcile Reconcile) *Controller {
	if workers <= 0 {
		workers = DefaultWorkers
	}
	c := &Controller{
		name:      name,
		reconcile: reconcile,
		workers:   workers,
		queue:     newQueue(),
		log:       t.log.With(zap.String(metrics.KeyController, name)),
		observe:   t.vectors.of(name),
		lost:      func(err error) { t.end(err) },
	}
	t.controllers = append(t.controllers, c)
	return c
}

// Informer makes an informer on the term's client, which the term runs. An OnError of o is called after the failure is
// logged.
func Informer[T kind.Object](t *Term, o client.InformerOptions[T]) *client.Informer[T] {
	onError := o.OnError
	o.OnError = func(err error) {
		t.log.Info("Watch ended, resuming", zap.Error(err))
		if onError != nil {
			onError(err)
		}
	}
	i := client.NewInformer(t.client, o)
	t.Add(i)
	return i
}

// run runs all that Setup added until the term's context ends, waits for it to stop, and returns why it ended.
func (t *Term) run() error {
	var running sync.WaitGroup
	defer running.Wait()
	spawn := func(name string, run func(context.Context) error, mayReturn bool) {
		running.Go(func() {
			err := guarded(t.ctx, run)
			if t.ctx.Err() == nil && (err != nil || !mayReturn) {
				t.end(fmt.Errorf("%s stopped: %w", name, orReturned(err)))
			}
		})
	}
	begun := time.Now()
	for _, r := range t.runners {
		spawn("informer", r.Run, false)
	}
	for _, r := range t.runners {
		if r.WaitForSync(t.ctx) != nil {
			return context.Cause(t.ctx)
		}
	}
	t.log.Info("Controllers start", zap.Duration("sync", time.Since(begun)), zap.Int("controllers", len(t.controllers)))
	for _, task := range t.tasks {
		spawn(task.name, task.run, true)
	}
	for _, c := range t.controllers {
		running.Go(func() { c.run(t.ctx) })
	}
	<-t.ctx.Done()
	return context.Cause(t.ctx)
}

func orReturned(err error) error {
	if err == nil {
		return errors.New("it returned")
	}
	return err
}

// guarded turns a panic into an error.
func guarded(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
		}
	}()
	return run(ctx)
}
