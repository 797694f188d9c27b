// Package discovery tells the processes of the control plane where the others are. Every instance keeps a leased key
// in etcd, in the form of etcd's own gRPC naming, and a Directory follows all of them with one watch.
package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Prefix precedes every key: the service, a slash and the instance's host follow.
const Prefix = "/xebec/services/"

// TTL is how long an instance that died in silence stays listed, in seconds. Its callers notice the lost connection
// long before.
const TTL = 5

// callTimeout bounds one request to etcd.
const callTimeout = 3 * time.Second

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

// Register lists the instance until ctx ends, then takes it off. It is off as well while etcd has not heard from this
// process for TTL seconds, and back when it has: an outage of etcd never ends Register. changed, when not nil, is told
// every change. It returns nil, or an error at once when the instance can't be listed ever.
func Register(ctx context.Context, client *clientv3.Client, instance Instance, log *zap.Logger, changed func(registered bool)) error {
	if instance.Service == "" || instance.Host == "" || instance.Addr == "" {
		return fmt.Errorf("register %+v: service, host and address are required", instance)
	}
	if changed == nil {
		changed = func(bool) {}
	}
	manager, err := endpoints.NewManager(client, strings.TrimSuffix(Prefix, "/"))
	if err != nil {
		return fmt.Errorf("register %s: %w", instance.Service, err)
	}
	var backoff backoff
	for ctx.Err() == nil {
		lease, err := list(ctx, client, manager, instance)
		if err != nil {
			if ctx.Err() == nil {
				log.Warn("Registration failed", zap.String(metrics.KeyService, instance.Service), zap.Error(err))
				backoff.wait(ctx)
			}
			continue
		}
		backoff.reset()
		changed(true)
		keepAlive(ctx, client, lease)
		changed(false)
		if ctx.Err() == nil {
			log.Warn("Registration lapsed", zap.String(metrics.KeyService, instance.Service))
			continue
		}
		revoke(ctx, client, lease)
	}
	return nil
}

// list puts the key under a new lease, replacing one that an earlier process left.
func list(ctx context.Context, client *clientv3.Client, manager endpoints.Manager, instance Instance) (clientv3.LeaseID, error) {
	// A member that has no leader refuses at once: while a cut master heals, a call that hangs there would keep the
	// instance off the list for longer than the master needs.
	short, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), callTimeout)
	defer cancel()
	grant, err := client.Grant(short, TTL)
	if err != nil {
		return 0, fmt.Errorf("grant lease: %w", err)
	}
	endpoint := endpoints.Endpoint{Addr: instance.Addr, Metadata: instance}
	if err = manager.AddEndpoint(short, instance.key(), endpoint, clientv3.WithLease(grant.ID)); err != nil {
		revoke(ctx, client, grant.ID)
		return 0, fmt.Errorf("put %s: %w", instance.key(), err)
	}
	return grant.ID, nil
}

// revoke gives a lease up soon rather than by waiting; failing that, it lapses.
func revoke(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = client.Revoke(short, lease)
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

// backoff waits longer from failure to failure, up to a second.
type backoff struct {
	delay time.Duration
}

func (b *backoff) reset() { b.delay = 0 }

func (b *backoff) wait(ctx context.Context) {
	b.delay = min(max(2*b.delay, 100*time.Millisecond), time.Second)
	timer := time.NewTimer(b.delay/2 + rand.N(b.delay/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
