package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/renewal"
	"github.com/xebec-project/xebec/internal/retry"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// ErrLeaseLost is the cause when a lease could not be renewed in time, or the server no longer
// knows it.
var ErrLeaseLost = errors.New("lease lost")

const (
	// grantTimeout bounds the first call for a lease, and each further one that follows because it was
	// not answered has twice the time. grantLimit bounds all of them where the context has no
	// deadline.
	grantTimeout = 3 * time.Second
	grantLimit   = 30 * time.Second
	// Pauses between calls that failed at once.
	grantPauseMin = 100 * time.Millisecond
	grantPauseMax = 3 * time.Second
	// leastPatience is the least time for the answer to a renewal, however short the lease is.
	leastPatience = 500 * time.Millisecond
)

// Lease is a lease that is being kept alive. All methods may be called concurrently.
type Lease struct {
	client *Client
	id     int64
	ttl    time.Duration
	stop   context.CancelFunc
	done   chan struct{}
	// answered, nil for none, receives the time that each answer to a renewal took.
	answered func(took time.Duration)
	// outgrown is closed, once, when the server advises a much longer time to live.
	outgrown chan struct{}
	outgrow  sync.Once

	mu       sync.Mutex
	deadline time.Time
	err      error
}

// KeepLease grants a lease of about ttl, which is rounded up to whole seconds, and renews it until
// ctx ends, Revoke is called, or it is lost. A grant that is not answered, or that an overloaded
// server refuses, is tried again until ctx ends or 30 s have passed, under the same id: whatever
// became of the earlier attempts, there is one lease. Other failures are returned at once.
//
// The lease counts as lost when the server says that it is gone, or when ttl has passed since the
// sending of the last renewal that was confirmed: at that moment, by this machine's monotonic
// clock, it may lapse at the server. Then onLost, unless nil, is called once from the keeper's
// goroutine. Renewals that fail or are not answered soon are tried again within the ttl over new
// streams, which the connection's balancer spreads over the servers; late answers count.
//
// When ctx ends the lease is left to lapse by itself; Revoke ends it at once.
func KeepLease(ctx context.Context, c *Client, ttl time.Duration, onLost func(error), options ...LeaseOption) (*Lease, error) {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	granted, sent, err := c.grant(ctx, seconds)
	if err != nil {
		return nil, fmt.Errorf("grant a lease: %w", err)
	}
	return c.keep(ctx, granted.GetLeaseId(), granted.GetTtlSeconds(), sent, onLost, options...), nil
}

// LeaseOption changes how a lease is kept.
type LeaseOption func(*Lease)

// OnAnswer calls f from the keeper's goroutine with the time that the answer to each renewal took.
func OnAnswer(f func(took time.Duration)) LeaseOption { return func(l *Lease) { l.answered = f } }

// grant asks for a lease until there is an answer, and returns when the call that was answered was
// sent.
func (c *Client) grant(ctx context.Context, seconds int64) (*apiv1.GrantResponse, time.Time, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, grantLimit)
		defer cancel()
	}
	req := &apiv1.GrantRequest{TtlSeconds: seconds, LeaseId: renewal.NewID()}
	pauses := backoff.Backoff{Min: grantPauseMin, Max: grantPauseMax}
	for timeout := grantTimeout; ; {
		attempt, cancel := context.WithTimeout(retry.ByCaller(ctx), timeout)
		sent := time.Now()
		granted, err := c.leases.Grant(attempt, req, grpc.WaitForReady(true))
		late := attempt.Err() != nil
		cancel()
		switch {
		case err == nil:
			return granted, sent, nil
		case apierr.IsAlreadyExists(err):
			req.LeaseId = renewal.NewID() // the id is another user's
		case !apierr.IsRetryable(err):
			return nil, sent, err
		case late:
			timeout *= 2
		}
		if pauses.Wait(ctx, err) != nil {
			return nil, sent, err
		}
	}
}

// AdoptLease goes on with a lease that the same caller was granted before, as by a process that
// this one takes over from. It renews the lease once before it returns; otherwise it is KeepLease.
// The error wraps ErrLeaseLost when the lease has lapsed.
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
func (c *Client) keep(ctx context.Context, id, ttlSeconds int64, sent time.Time, onLost func(error), options ...LeaseOption) *Lease {
	ttl := time.Duration(ttlSeconds) * time.Second
	ctx, stop := context.WithCancel(ctx)
	l := &Lease{client: c, id: id, ttl: ttl, stop: stop, done: make(chan struct{}), outgrown: make(chan struct{}), deadline: sent.Add(ttl)}
	for _, option := range options {
		option(l)
	}
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

// Outgrown is closed when the server advises a time to live of more than 1.5 times the lease's: the
// cluster has grown since it was granted. The time to live of a lease cannot be changed: its owner
// should take another and move its objects, with Update and UnderLease.
func (l *Lease) Outgrown() <-chan struct{} { return l.outgrown }

// advise notes the time to live that the server advises, 0 for none.
func (l *Lease) advise(seconds int64) {
	if 2*time.Duration(seconds)*time.Second > 3*l.ttl {
		l.outgrow.Do(func() { close(l.outgrown) })
	}
}

// Err returns nil while the lease is kept, an error that wraps ErrLeaseLost once it is lost, and
// context.Canceled after Revoke or the context's end.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Revoke stops the renewals and ends the lease, so that the objects under it vanish at once. A
// lease that is gone already is no error.
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

// renewals renews the lease until ctx ends or the lease is lost.
func (l *Lease) renewals(ctx context.Context) error {
	deadline, interval := l.Deadline(), l.ttl/3
	err := renewal.Keep(ctx, renewal.Lease{
		Deadline: deadline,
		Due:      deadline.Add(interval - l.ttl),
		Interval: interval,
		Patience: max(l.ttl/5, leastPatience),
		Open:     l.open,
		Renewed: func(deadline time.Time) {
			l.mu.Lock()
			l.deadline = deadline
			l.mu.Unlock()
			if l.answered != nil {
				l.answered(l.ttl - time.Until(deadline))
			}
		},
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, renewal.ErrGone):
		return fmt.Errorf("%w: %w", ErrLeaseLost, err)
	}
	return fmt.Errorf("%w: not renewed within %v: %w", ErrLeaseLost, l.ttl, err)
}

// open opens a stream of renewals.
func (l *Lease) open(ctx context.Context) (renewal.Renew, error) {
	// A stream that fails because there is no connection yet would be tried again several times a
	// second.
	s, err := l.client.leases.KeepAlive(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	return func() (time.Duration, error) {
		// A failed Send says only that the stream ended: Recv says why.
		_ = s.Send(&apiv1.KeepAliveRequest{LeaseId: l.id})
		resp, err := s.Recv()
		if status.Code(err) == codes.NotFound {
			err = fmt.Errorf("%w: %w", renewal.ErrGone, err)
		}
		l.advise(resp.GetAdvisedTtlSeconds())
		return time.Duration(resp.GetTtlSeconds()) * time.Second, err
	}, nil
}
