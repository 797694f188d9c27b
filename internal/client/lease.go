package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// ErrLeaseLost is the cause when a lease could not be renewed in time, or the server no longer knows it.
var ErrLeaseLost = errors.New("lease lost")

const (
	leaseBackoffMin = 20 * time.Millisecond
	leaseBackoffMax = 500 * time.Millisecond
)

// Lease is a lease that is being kept alive. All methods may be called concurrently.
type Lease struct {
	client *Client
	id     int64
	ttl    time.Duration
	stop   context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	deadline time.Time
	err      error
}

// KeepLease grants a lease of about ttl, which is rounded up to whole seconds, and renews it until ctx ends, Revoke is
// called, or it is lost. The grant itself is tried once; its failure is returned.
//
// The lease counts as lost when the server says that it is gone, or when ttl has passed since the sending of the last
// renewal that was confirmed: at that moment, by this machine's monotonic clock, it may lapse at the server. Then
// onLost, unless nil, is called once from the keeper's goroutine. Renewals that fail are tried again within the ttl
// over new streams, which the connection's balancer spreads over the servers.
//
// When ctx ends the lease is left to lapse by itself; Revoke ends it at once.
func KeepLease(ctx context.Context, c *Client, ttl time.Duration, onLost func(error)) (*Lease, error) {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	sent := time.Now()
	grantCtx, cancel := c.bounded(ctx)
	resp, err := c.leases.Grant(grantCtx, &apiv1.GrantRequest{TtlSeconds: seconds})
	cancel()
	if err != nil {
		return nil, fmt.Errorf("grant a lease: %w", err)
	}
	return c.keep(ctx, resp.GetLeaseId(), resp.GetTtlSeconds(), sent, onLost), nil
}

// AdoptLease goes on with a lease that the same caller was granted before, as by a process that this one takes over from.
// It renews the lease once before it returns; otherwise it is KeepLease. The error wraps ErrLeaseLost when the lease has
// lapsed.
func AdoptLease(ctx context.Context, c *Client, id int64, onLost func(error)) (*Lease, error) {
	sent := time.Now()
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	ttl, err := c.renewOnce(bounded, id)
	switch {
	case status.Code(err) == codes.NotFound:
		return nil, fmt.Errorf("adopt lease %x: %w: %w", id, ErrLeaseLost, err)
	case err != nil:
		return nil, fmt.Errorf("adopt lease %x: %w", id, err)
	}
	return c.keep(ctx, id, ttl, sent, onLost), nil
}

func (c *Client) renewOnce(ctx context.Context, id int64) (ttlSeconds int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.leases.KeepAlive(ctx)
	if err != nil {
		return 0, err
	}
	// A failed Send says only that the stream ended: Recv says why.
	_ = s.Send(&apiv1.KeepAliveRequest{LeaseId: id})
	resp, err := s.Recv()
	return resp.GetTtlSeconds(), err
}

// keep begins to keep a lease that was last renewed by what was sent at that time.
func (c *Client) keep(ctx context.Context, id, ttlSeconds int64, sent time.Time, onLost func(error)) *Lease {
	ttl := time.Duration(ttlSeconds) * time.Second
	ctx, stop := context.WithCancel(ctx)
	l := &Lease{client: c, id: id, ttl: ttl, stop: stop, done: make(chan struct{}), deadline: sent.Add(ttl)}
	go l.keep(ctx, onLost)
	return l
}

// ID returns the lease's id, for UnderLease.
func (l *Lease) ID() int64 { return l.id }

// TTL returns the time to live that the server granted.
func (l *Lease) TTL() time.Duration { return l.ttl }

// Deadline returns when the lease is lost unless it is renewed before.
func (l *Lease) Deadline() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline
}

// Done is closed when the lease is no longer kept: it was lost, revoked, or its context ended.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Err returns nil while the lease is kept, an error that wraps ErrLeaseLost once it is lost, and context.Canceled after
// Revoke or the context's end.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Revoke stops the renewals and ends the lease, so that the objects under it vanish at once. A lease that is gone
// already is no error.
func (l *Lease) Revoke(ctx context.Context) error {
	l.stop()
	<-l.done
	ctx, cancel := l.client.bounded(ctx)
	defer cancel()
	_, err := l.client.leases.Revoke(ctx, &apiv1.RevokeRequest{LeaseId: l.id})
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("revoke lease %x: %w", l.id, err)
	}
	return nil
}

func (l *Lease) keep(ctx context.Context, onLost func(error)) {
	defer l.stop()
	err := l.renewals(ctx)
	if ctx.Err() != nil && !errors.Is(err, ErrLeaseLost) {
		err = context.Canceled
	}
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
	close(l.done)
	if onLost != nil && errors.Is(err, ErrLeaseLost) {
		onLost(err)
	}
}

// renewals opens stream after stream until ctx ends or the lease is lost.
func (l *Lease) renewals(ctx context.Context) error {
	b := backoff{min: leaseBackoffMin, max: leaseBackoffMax}
	// The first renewal is due a third into the lease; after a failure the next is due at once.
	due := time.Now().Add(l.interval())
	var last error
	for {
		deadline := l.Deadline()
		if !time.Now().Before(deadline) {
			return fmt.Errorf("%w: not renewed within %v: %w", ErrLeaseLost, l.ttl, orUnknown(last))
		}
		bounded, cancel := context.WithDeadline(ctx, deadline)
		if !sleepUntil(bounded, due) {
			cancel()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		renewed, err := l.stream(bounded, ctx)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case status.Code(err) == codes.NotFound:
			return fmt.Errorf("%w: %w", ErrLeaseLost, err)
		}
		last = err
		if renewed {
			b.reset()
		}
		due = time.Time{}
		pause, cancel := context.WithDeadline(ctx, l.Deadline())
		b.wait(pause)
		cancel()
	}
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("no renewal was tried in time")
	}
	return err
}

// interval is the time from one renewal to the next.
func (l *Lease) interval() time.Duration { return l.ttl / 3 }

// patience is how long one renewal may take before another stream is tried.
func (l *Lease) patience() time.Duration { return max(l.ttl/5, 500*time.Millisecond) }

// stream renews over one stream, at once and then at every interval, until that fails. The bound holds only until the
// first renewal moved the deadline; after it, each one's own patience does.
func (l *Lease) stream(bound, ctx context.Context) (renewed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The watchdog ends the stream when an answer is overdue: neither Send nor Recv takes a deadline of its own.
	overdue := fmt.Errorf("no answer to a renewal within %v", l.patience())
	watchdog := time.AfterFunc(l.patience(), func() { cancel(overdue) })
	defer watchdog.Stop()
	unbind := context.AfterFunc(bound, func() { cancel(context.Cause(bound)) })
	defer unbind()
	explain := func(err error) error {
		if cause := context.Cause(ctx); errors.Is(cause, overdue) {
			return fmt.Errorf("%w: %w", overdue, err)
		}
		return err
	}

	s, err := l.client.leases.KeepAlive(ctx)
	if err != nil {
		return false, explain(err)
	}
	for {
		sent := time.Now()
		// A failed Send says only that the stream ended: Recv says why.
		_ = s.Send(&apiv1.KeepAliveRequest{LeaseId: l.id})
		resp, err := s.Recv()
		if err != nil {
			return renewed, explain(err)
		}
		watchdog.Stop()
		unbind()
		renewed = true
		l.mu.Lock()
		l.deadline = sent.Add(time.Duration(resp.GetTtlSeconds()) * time.Second)
		l.mu.Unlock()
		if !sleepUntil(ctx, sent.Add(l.interval())) {
			return renewed, context.Cause(ctx)
		}
		watchdog.Reset(l.patience())
	}
}

// sleepUntil waits for t and reports whether it came before ctx's end.
func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
