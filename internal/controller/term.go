package controller

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/scheme"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
)

// Runner is what a term starts before its controllers: an informer, for example.
type Runner interface {
	// Run works until ctx ends. Returning sooner ends the term.
	Run(ctx context.Context) error
	// WaitForSync returns when controllers may read it, or with ctx's error.
	WaitForSync(ctx context.Context) error
}

// Term runs informers, controllers and tasks together for a period: that of one leadership, as a
// rule. Setup adds them; Run runs them once.
type Term struct {
	ctx         context.Context
	end         context.CancelCauseFunc
	client      *client.Client
	log         *zap.Logger
	metrics     *Metrics
	runners     []Runner
	tasks       []task
	controllers []*Controller
}

// NewTerm returns a term that ends with ctx at the latest. The client is that of its informers and
// controllers. The logger may be nil.
func NewTerm(ctx context.Context, c *client.Client, log *zap.Logger, m *Metrics) *Term {
	if log == nil {
		log = zap.NewNop()
	}
	ctx, end := context.WithCancelCause(ctx)
	return &Term{ctx: ctx, end: end, client: c, log: log, metrics: m}
}

// Child returns a term on the same client for controllers that come and go while t lasts. Its
// controllers are not among those that t lists and resyncs.
func (t *Term) Child(ctx context.Context) *Term { return NewTerm(ctx, t.client, t.log, t.metrics) }

type task struct {
	name string
	run  func(context.Context) error
}

// Client returns the term's client. Under an election, its writes happen only while the term lasts.
func (t *Term) Client() *client.Client { return t.client }

// Logger returns the term's logger.
func (t *Term) Logger() *zap.Logger { return t.log }

// Add makes the term run r and wait for it to sync before any controller or task starts.
func (t *Term) Add(r Runner) { t.runners = append(t.runners, r) }

// Go makes the term run a task beside the controllers, once the informers have synced. An error of
// the task ends the term.
func (t *Term) Go(name string, run func(ctx context.Context) error) {
	t.tasks = append(t.tasks, task{name, run})
}

// Controller adds a reconcile loop with a number of workers; 0 means DefaultWorkers. Names are
// unique within a term.
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
		observe:   t.metrics.of(name),
		lost:      func(err error) { t.end(err) },
	}
	t.controllers = append(t.controllers, c)
	return c
}

// Informer adds an informer on the term's client. An OnError of o is called after the failure is
// logged.
func Informer[T scheme.Object](t *Term, o client.InformerOptions[T]) *client.Informer[T] {
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

// Run runs what was added until the term's context ends, or a part of it fails, and waits for all
// to stop. It returns the reason of the end.
func (t *Term) Run() error {
	defer t.end(nil)
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
	t.log.Info("Controllers started", zap.Duration(metrics.KeySync, time.Since(begun)), zap.Int(metrics.KeyControllers, len(t.controllers)))
	for _, task := range t.tasks {
		spawn(task.name, task.run, true)
	}
	for _, c := range t.controllers {
		running.Go(func() { c.run(t.ctx) })
	}
	<-t.ctx.Done()
	return context.Cause(t.ctx)
}

// Controllers returns the state of each controller, by name.
func (t *Term) Controllers() []*controlv1.Controller {
	all := make([]*controlv1.Controller, len(t.controllers))
	for i, c := range t.controllers {
		all[i] = c.state()
	}
	slices.SortFunc(all, func(a, b *controlv1.Controller) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

// Resync enqueues all objects of the controller of this name, or of all controllers when it is
// empty. It returns how many, and false when there is no such controller.
func (t *Term) Resync(name string) (keys int64, found bool) {
	found = name == ""
	for _, c := range t.controllers {
		if name == "" || name == c.name {
			found = true
			keys += c.resync()
		}
	}
	return keys, found
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
