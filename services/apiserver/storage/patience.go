package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/xebec-project/xebec/internal/backoff"
)

// patience estimates how long etcd may take to answer one sort of request before it is reasonable
// to try another member, as TCP's retransmission timer does (RFC 6298): the smoothed round-trip
// time and four times its smoothed deviation. Thus a member that is dead is noticed soon while etcd
// is quick, and one that is slow is waited for.
//
// After a time-out the limit is doubled, and stays so until an answer tells how quick etcd is
// (Karn's algorithm). Every answer does: unlike TCP's acknowledgements, each belongs to one
// request.
type patience struct {
	floor, ceiling time.Duration

	mu        sync.Mutex
	known     bool // whether there was an answer
	smoothed  time.Duration
	deviation time.Duration
	backedOff time.Duration // the least limit until the next answer, 0 for none
}

// newPatience returns a patience whose limit is at least floor and, unless floor is more, at most
// ceiling.
func newPatience(floor, ceiling time.Duration) *patience {
	return &patience{floor: floor, ceiling: max(floor, ceiling)}
}

// limit returns how long to wait for the next answer.
func (p *patience) limit() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bounded(max(p.estimated(), p.backedOff))
}

// estimate is limit without what time-outs added.
func (p *patience) estimate() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bounded(p.estimated())
}

func (p *patience) estimated() time.Duration { return p.smoothed + 4*p.deviation }

func (p *patience) bounded(d time.Duration) time.Duration { return min(max(d, p.floor), p.ceiling) }

// answered takes note that a request was answered after so long.
func (p *patience) answered(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backedOff = 0
	if !p.known {
		p.known, p.smoothed, p.deviation = true, took, took/2
		return
	}
	p.deviation += ((p.smoothed - took).Abs() - p.deviation) / 4
	p.smoothed += (took - p.smoothed) / 8
}

// exceeded takes note that a request was not answered within a limit. Many requests that exceed the
// same limit double it once.
func (p *patience) exceeded(limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backedOff = p.bounded(max(p.backedOff, 2*limit))
}

// Pauses between requests that failed at once.
const (
	retryPauseMin = 50 * time.Millisecond
	retryPauseMax = time.Second
)

func newBackoff() backoff.Backoff { return backoff.Backoff{Min: retryPauseMin, Max: retryPauseMax} }

// hedged makes an idempotent request until it is answered, refused, or ctx ends. When there is no
// answer within the patience it makes another request beside the first, which the balancer of
// etcd's client hands to another member, and listens to both: the first answer counts, so that a
// slow one is not lost. A request that failed because etcd could not answer is made again after a
// pause.
func hedged[T any](ctx context.Context, p *patience, request func(context.Context) (T, error)) (T, error) {
	return hedgedBy(ctx, p, func() (time.Duration, func()) {
		limit := p.limit()
		return limit, func() { p.exceeded(limit) }
	}, request)
}

// hedgedBy is hedged with other limits than the patience's: next returns the time until another
// request is made, and what to call then.
func hedgedBy[T any](ctx context.Context, p *patience, next func() (time.Duration, func()), request func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Nearly always one request is enough, so the first is made in the caller's own goroutine.
	var other T
	var otherErr error
	others := make(chan struct{})
	limit, exceeded := next()
	late := time.AfterFunc(limit, func() {
		exceeded()
		other, otherErr = repeat(ctx, p, next, request)
		close(others)
		cancel()
	})
	sent := time.Now()
	value, err := request(ctx)
	stopped := late.Stop()
	switch {
	case err == nil:
		p.answered(time.Since(sent))
		return value, nil
	case ctx.Err() == nil && !transient(err):
		return value, err
	case stopped:
		pauses := newBackoff()
		if ended := pauses.Wait(ctx, err); ended != nil {
			return value, fmt.Errorf("%w: %w", ended, err)
		}
		return repeat(ctx, p, next, request)
	}
	<-others
	return other, otherErr
}

// repeat is hedgedBy from the second request on.
func repeat[T any](ctx context.Context, p *patience, next func() (time.Duration, func()), request func(context.Context) (T, error)) (T, error) {
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
	pauses := newBackoff()
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
				p.answered(a.took)
				return a.value, nil
			case ctx.Err() == nil && !transient(a.err):
				return none, a.err
			}
			failure = a.err
			if underWay == 0 {
				again.Reset(pauses.Next(a.err))
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

// jittered returns a random duration around d: from three quarters to five quarters of it.
func jittered(d time.Duration) time.Duration { return d*3/4 + rand.N(max(1, d/2)) }
