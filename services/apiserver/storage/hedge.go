package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/retry"
)

// Limits of the back-off between requests that etcd could not answer.
const (
	backoffMin = 50 * time.Millisecond
	backoffMax = time.Second
)

func newBackoff() backoff.Backoff { return backoff.Backoff{Min: backoffMin, Max: backoffMax} }

// hedged makes an idempotent request until it is answered or refused, or ctx ends. Without an
// answer within the timeout it makes a second request beside the first, which the balancer of
// etcd's client sends to another member. The first answer counts, so that a slow one is not lost. A
// request that failed because etcd could not answer is repeated with a back-off, here alone: the
// interceptor of etcd's client makes one attempt.
func hedged[T any](ctx context.Context, t *adaptiveTimeout, request func(context.Context) (T, error)) (T, error) {
	return hedgedBy(ctx, t, func() (time.Duration, func()) {
		limit := t.limit()
		return limit, func() { t.exceeded(limit) }
	}, request)
}

// hedgedBy is hedged with other limits than those of the timeout: next returns the time until
// another request is made, and the function to call then.
func hedgedBy[T any](
	ctx context.Context, t *adaptiveTimeout, next func() (time.Duration, func()), request func(context.Context) (T, error),
) (T, error) {
	ctx, cancel := context.WithCancel(retry.ByCaller(ctx))
	defer cancel()
	// Nearly always one request is enough, so the first is made in the caller's own goroutine.
	var other T
	var otherErr error
	others := make(chan struct{})
	limit, exceeded := next()
	late := time.AfterFunc(limit, func() {
		exceeded()
		other, otherErr = repeat(ctx, t, next, request)
		close(others)
		cancel()
	})
	sent := time.Now()
	value, err := request(ctx)
	stopped := late.Stop()
	switch {
	case err == nil:
		t.answered(time.Since(sent))
		return value, nil
	case ctx.Err() == nil && !transient(err):
		return value, err
	case stopped:
		wait := newBackoff()
		if ended := wait.Wait(ctx, err); ended != nil {
			return value, fmt.Errorf("%w: %w", ended, err)
		}
		return repeat(ctx, t, next, request)
	}
	<-others
	return other, otherErr
}

// repeat is hedgedBy from the second request on.
func repeat[T any](
	ctx context.Context, t *adaptiveTimeout, next func() (time.Duration, func()), request func(context.Context) (T, error),
) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		value T
		err   error
		took  time.Duration
	}
	answers := make(chan answer)
	underWay := 0
	send := func() {
		underWay++
		go func() {
			sent := time.Now()
			value, err := request(ctx)
			select {
			case answers <- answer{value, err, time.Since(sent)}:
			case <-ctx.Done():
			}
		}()
	}
	var none T
	var failure error
	wait := newBackoff()
	limit, exceeded := next()
	again := time.NewTimer(limit)
	defer again.Stop()
	send()
	for {
		select {
		case a := <-answers:
			underWay--
			switch {
			case a.err == nil:
				t.answered(a.took)
				return a.value, nil
			case ctx.Err() == nil && !transient(a.err):
				return none, a.err
			}
			failure = a.err
			if underWay == 0 {
				again.Reset(wait.Next(a.err))
			}
		case <-again.C:
			if underWay > 0 {
				exceeded()
			}
			send()
			limit, exceeded = next()
			again.Reset(limit)
		case <-ctx.Done():
			if failure != nil {
				return none, fmt.Errorf("%w: %w", ctx.Err(), failure)
			}
			return none, ctx.Err()
		}
	}
}
