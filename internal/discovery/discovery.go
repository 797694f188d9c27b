// Package discovery tells the processes of the control plane where the others are. Every instance
// keeps a leased key in etcd, in the form of etcd's own gRPC naming, and a Directory follows all of
// them with one watch.
package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/renewal"
)

// Prefix precedes every key: the service, a slash and the instance's host follow.
const Prefix = "/xebec/services/"

const (
	// TTL is how long an instance that died in silence stays listed. Its callers notice the lost
	// connection long before.
	TTL = 5 * time.Second
	// longestTTL is how long it stays listed at most while etcd is too busy to renew leases in time.
	longestTTL = time.Minute
	// firstTimeout bounds the first request to etcd. While requests take longer each has twice the
	// time of the one before, up to lastTimeout: to give up what etcd is slow to answer, and to ask
	// again, is more work for it.
	firstTimeout = 3 * time.Second
	lastTimeout  = 20 * time.Second
	// instancesTimeout bounds Instances, for whose answer a person or a call may be waiting.
	instancesTimeout = 5 * time.Second

	// Pauses between attempts that failed.
	pauseMin = 100 * time.Millisecond
	pauseMax = 3 * time.Second
)

func newBackoff() backoff.Backoff { return backoff.Backoff{Min: pauseMin, Max: pauseMax} }

// timeout is the time for a request.
type timeout time.Duration

// with returns a context with this time, and a function that ends it and grows the time when it was
// over.
func (t *timeout) with(ctx context.Context) (context.Context, func()) {
	now := max(firstTimeout, time.Duration(*t))
	short, cancel := context.WithTimeout(ctx, now)
	return short, func() {
		if short.Err() != nil && ctx.Err() == nil {
			*t = timeout(min(2*now, lastTimeout))
		}
		cancel()
	}
}

func (t *timeout) reset() { *t = 0 }

// Instance is one process of a service.
type Instance struct {
	// Service is the service's name, such as "scheduler".
	Service string `json:"service"`
	// Host is the master it runs on; a host runs one instance of a service.
	Host string `json:"host"`
	// Addr is the host:port at which others reach it.
	Addr string `json:"-"`
	// Version is its build's version.
	Version string `json:"version"`
}

func (i Instance) key() string { return Prefix + i.Service + "/" + i.Host }

// Register lists the instance until ctx ends, then takes it off. It is off as well while etcd has
// not heard from this process for TTL, and back when it has: an outage of etcd never ends Register.
// While etcd is too busy to hear from it in time, that time grows. changed, when not nil, is called
// for every change. Register returns nil, or an error at once when the instance can't be listed
// ever.
func Register(ctx context.Context, client *clientv3.Client, instance Instance, log *zap.Logger, changed func(registered bool)) error {
	if instance.Service == "" || instance.Host == "" || instance.Addr == "" {
		return fmt.Errorf("register %+v: service, host and address are required", instance)
	}
	if changed == nil {
		changed = func(bool) {}
	}
	r, err := newRegistration(client, instance, log, changed, renewal.Calm)
	if err != nil {
		return fmt.Errorf("register %s: %w", instance.Service, err)
	}
	r.run(ctx)
	return nil
}

// registration lists an instance.
type registration struct {
	client   *clientv3.Client
	manager  endpoints.Manager
	instance Instance
	changed  func(registered bool)
	log      *zap.Logger

	ttl    renewal.TTL
	limit  timeout
	pauses backoff.Backoff
	listed bool
	// lease is the one that the key is or will be under. previous, nil for none, is the one that the
	// key is under until it is put under lease.
	lease, previous *lease
}

func newRegistration(
	client *clientv3.Client, instance Instance, log *zap.Logger, changed func(bool), calm time.Duration,
) (*registration, error) {
	manager, err := endpoints.NewManager(client, strings.TrimSuffix(Prefix, "/"))
	if err != nil {
		return nil, err
	}
	return &registration{
		client: client, manager: manager, instance: instance, changed: changed,
		log:    log.With(zap.String(metrics.KeyService, instance.Service)),
		ttl:    renewal.TTL{Least: TTL, Most: longestTTL, Calm: calm},
		pauses: newBackoff(),
	}, nil
}

const msgFailed = "Registration failed"

// errShorter ends the use of a lease that lasts longer than it has to.
var errShorter = errors.New("a shorter lease will do")

// run keeps the instance listed until ctx ends.
func (r *registration) run(ctx context.Context) {
	r.lease = newLease(r.client, r.ttl.Current())
	defer func() {
		r.lease.revoke(ctx)
		if r.previous != nil {
			r.previous.revoke(ctx)
		}
	}()
	for {
		err := r.hold(ctx)
		if ctx.Err() != nil {
			r.set(false)
			return
		}
		if errors.Is(err, errShorter) {
			r.previous, r.lease = r.lease, newLease(r.client, r.ttl.Current())
			continue
		}
		what := msgFailed
		if r.listed {
			what = "Registration lapsed"
		}
		r.set(false)
		r.log.Warn(what, zap.Error(err))
		if errors.Is(err, errLost) {
			r.ttl.Lost()
			r.lease = newLease(r.client, r.ttl.Current())
		}
		_ = r.pauses.Wait(ctx, err) // the loop sees that ctx has ended
	}
}

// set notes whether the instance is listed.
func (r *registration) set(listed bool) {
	if listed != r.listed {
		r.listed = listed
		r.changed(listed)
	}
}

// errLost wraps why a lease was lost.
var errLost = errors.New("lease lost")

// hold takes the lease, lists the instance under it and keeps it until that fails or ctx ends. The
// lease is renewed from the time at which it is there: to list the instance may take longer than
// the lease lasts.
func (r *registration) hold(ctx context.Context) error {
	// A member that has no leader refuses at once: while a cut master heals, a call that hangs there
	// would keep the instance off the list for longer than the master needs.
	short, end := r.limit.with(clientv3.WithRequireLeader(ctx))
	sent := time.Now()
	existed, err := r.lease.grant(short)
	end()
	if err != nil {
		return fmt.Errorf("grant lease: %w", err)
	}
	if existed {
		sent = time.Time{}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var keeping sync.WaitGroup
	defer keeping.Wait()
	keeping.Go(func() {
		err := r.lease.keepAlive(ctx, sent, func(took time.Duration) {
			if r.ttl.Answered(took) {
				cancel(errShorter)
			}
		})
		cancel(fmt.Errorf("%w: %w", errLost, err))
	})
	for {
		err := r.list(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = fmt.Errorf("%w: %w", errLost, err)
			cancel(err)
			return err
		}
		r.log.Warn(msgFailed, zap.Error(err))
		_ = r.pauses.Wait(ctx, err) // the next attempt sees that ctx has ended
	}
	r.pauses.Reset()
	r.limit.reset()
	r.set(true)
	if r.previous != nil {
		r.previous.revoke(ctx)
		r.previous = nil
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// list puts the key under the lease, replacing one that an earlier process left.
func (r *registration) list(ctx context.Context) error {
	short, end := r.limit.with(clientv3.WithRequireLeader(ctx))
	defer end()
	endpoint := endpoints.Endpoint{Addr: r.instance.Addr, Metadata: r.instance}
	if err := r.manager.AddEndpoint(short, r.instance.key(), endpoint, clientv3.WithLease(clientv3.LeaseID(r.lease.id))); err != nil {
		return fmt.Errorf("put %s: %w", r.instance.key(), err)
	}
	return nil
}

// decode returns the instance that a key and its value list.
func decode(key, value []byte) (Instance, error) {
	var stored struct {
		Addr     string
		Metadata Instance
	}
	if err := json.Unmarshal(value, &stored); err != nil {
		return Instance{}, err
	}
	instance := stored.Metadata
	instance.Addr = stored.Addr
	if instance.Addr == "" {
		return Instance{}, errors.New("no address")
	}
	if got := instance.key(); got != string(key) {
		return Instance{}, fmt.Errorf("the value belongs to key %s", got)
	}
	return instance, nil
}
