// Package controller runs level-triggered reconcile loops: a Term holds the informers, the work
// queues and the loops that run together. Dependents has the objects that a controller's objects
// own. Package elected runs terms under an election.
package controller

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/scheme"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
)

// Key names the object to reconcile. The namespace is empty for kinds that have none.
type Key = client.Key

// Result says what follows a reconcile that did not fail. The zero value: nothing, until something
// changes.
type Result struct {
	// RequeueAfter, when more than 0, reconciles the key again after this time, or sooner when
	// something changes.
	RequeueAfter time.Duration
}

// Reconcile makes the state of one key what it should be. It is called after every change, possibly
// once for several, and never twice at once for the same key. An error brings the key back after a
// random pause, whose limit doubles from 5 ms to a minute. It must return soon after ctx ends. A
// panic counts as an error.
type Reconcile func(ctx context.Context, key Key) (Result, error)

// DefaultWorkers is how many keys a controller reconciles at once by default.
const DefaultWorkers = 4

// lastErrors is how many failures a controller remembers.
const lastErrors = 10

// Controller is one reconcile loop of a term. Its Enqueue methods may be called concurrently, and
// before the loop runs.
type Controller struct {
	name      string
	reconcile Reconcile
	workers   int
	queue     *queue
	log       *zap.Logger
	observe   observers
	lost      func(error)
	sources   []func() []Key

	mu         sync.Mutex
	reconciles int64
	failures   int64
	errors     []*controlv1.ReconcileError // oldest first
}

// Name returns the controller's name.
func (c *Controller) Name() string { return c.name }

// Enqueue makes the key due now.
func (c *Controller) Enqueue(k Key) {
	c.queue.add(k)
	c.gauge()
}

// EnqueueAfter makes the key due after d, unless it is due sooner already.
func (c *Controller) EnqueueAfter(k Key, d time.Duration) {
	c.queue.addAfter(k, d)
	c.gauge()
}

// For makes every change of the informer's objects enqueue the object itself, and Resync enqueue
// them all.
func For[T scheme.Object](c *Controller, i *client.Informer[T]) {
	Source(c, i)
	Map(c, i, func(obj T) []Key { return []Key{client.KeyOf(obj)} })
}

// Source makes Resync enqueue all the informer's objects, for a controller that itself decides
// which changes count.
func Source[T scheme.Object](c *Controller, i *client.Informer[T]) {
	c.sources = append(c.sources, func() []Key {
		all := i.List()
		keys := make([]Key, len(all))
		for n, obj := range all {
			keys[n] = client.KeyOf(obj)
		}
		return keys
	})
}

// Owned makes every change of the informer's objects enqueue the object of kind owner that controls
// them, before and after the change.
func Owned[T scheme.Object](c *Controller, i *client.Informer[T], owner *scheme.Kind) {
	Map(c, i, func(obj T) []Key {
		ref := kinds.ControllerOf(obj)
		if ref == nil || ref.GetKind() != owner.Name || ref.GetApiVersion() != owner.APIVersion() {
			return nil
		}
		k := Key{Name: ref.GetName()}
		if owner.Namespaced {
			k.Namespace = obj.GetMetadata().GetNamespace()
		}
		return []Key{k}
	})
}

// Map makes every change of the informer's objects enqueue the keys that f gives for the object
// before and after it.
func Map[T scheme.Object](c *Controller, i *client.Informer[T], f func(T) []Key) {
	i.OnChange(func(old, new T) {
		if !isZero(new) {
			for _, k := range f(new) {
				c.Enqueue(k)
			}
		}
		if !isZero(old) {
			for _, k := range f(old) {
				c.Enqueue(k)
			}
		}
	})
}

// isZero reports whether obj is the zero T: a nil pointer, or a nil interface for kind.Object.
func isZero[T scheme.Object](obj T) bool {
	var zero T
	return any(obj) == any(zero)
}

// resync enqueues all objects of the controller's sources and returns how many.
func (c *Controller) resync() int64 {
	var n int64
	for _, source := range c.sources {
		for _, k := range source() {
			c.Enqueue(k)
			n++
		}
	}
	return n
}

// run reconciles until ctx ends, and returns when the last reconcile has.
func (c *Controller) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, c.queue.close)
	defer stop()
	var workers sync.WaitGroup
	for range c.workers {
		workers.Go(func() {
			for {
				k, waited, ok := c.queue.take()
				if !ok {
					return
				}
				c.observe.waited.Observe(waited.Seconds())
				c.one(ctx, k)
				c.queue.done(k)
				c.gauge()
			}
		})
	}
	workers.Wait()
	c.observe.depth.Set(0)
}

func (c *Controller) one(ctx context.Context, k Key) {
	begun := time.Now()
	result, err := c.recovered(ctx, k)
	c.observe.took.Observe(time.Since(begun).Seconds())
	c.mu.Lock()
	c.reconciles++
	c.mu.Unlock()
	switch {
	case err == nil:
		c.queue.forget(k)
		if result.RequeueAfter > 0 {
			c.queue.addAfter(k, result.RequeueAfter)
		}
	case ctx.Err() != nil:
		// A failure at the end of the term is not the object's.
	case apierr.IsElectionLost(err):
		c.lost(err)
	default:
		c.failed(k, err)
	}
}

func (c *Controller) failed(k Key, err error) {
	pause := c.queue.retry(k, err)
	c.observe.failures.Inc()
	c.observe.retries.Inc()
	c.mu.Lock()
	c.failures++
	c.errors = append(c.errors, &controlv1.ReconcileError{
		Key: k.String(), Message: err.Error(), Time: timestamppb.Now(),
	})
	if len(c.errors) > lastErrors {
		c.errors = slices.Delete(c.errors, 0, len(c.errors)-lastErrors)
	}
	c.mu.Unlock()
	// Conflicts are normal for optimistic writers, and the retry solves them.
	log := c.log.Warn
	if apierr.IsConflict(err) {
		log = c.log.Debug
	}
	log("Reconcile failed", zap.Stringer(metrics.KeyKey, k), zap.Duration(metrics.KeyRetryAfter, pause), zap.Error(err))
}

// errPanic is what a panicking reconcile fails with.
var errPanic = errors.New("panic")

func (c *Controller) recovered(ctx context.Context, k Key) (result Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("Reconcile panicked", zap.Stringer(metrics.KeyKey, k), zap.Any(metrics.KeyPanic, p),
				zap.ByteString(metrics.KeyStack, debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return c.reconcile(ctx, k)
}

func (c *Controller) gauge() {
	due, _ := c.queue.depth()
	c.observe.depth.Set(float64(due))
}

// state returns what ListControllers shows.
func (c *Controller) state() *controlv1.Controller {
	due, active := c.queue.depth()
	c.mu.Lock()
	defer c.mu.Unlock()
	newest := slices.Clone(c.errors)
	slices.Reverse(newest)
	return &controlv1.Controller{
		Name: c.name, QueueDepth: int64(due), Active: int64(active),
		Reconciles: c.reconciles, Failures: c.failures, LastErrors: newest,
	}
}

// observers are the metrics of one controller.
type observers struct {
	depth             prometheus.Gauge
	waited, took      prometheus.Observer
	failures, retries prometheus.Counter
}
