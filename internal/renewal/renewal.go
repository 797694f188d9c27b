// Package renewal keeps leases alive through servers that hang and servers that are slow.
//
// A lease is renewed over one stream, at an interval. When an answer is overdue another stream is
// opened beside it, which the connection's balancer takes to another server: one that hangs costs
// little time. The first stream is still listened to, for a server that is only slow answers in the
// end, and its answer is worth as much. Every overdue answer doubles the time that the next one
// gets, and quick answers shorten it again, so that slow servers do not get ever more streams to
// serve.
package renewal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xebec-project/xebec/internal/backoff"
)

// ErrGone is wrapped by the error of a renewal when the server says that there is no such lease any
// more.
var ErrGone = errors.New("the lease is gone")

const (
	// maxStreams bounds the streams whose answers are awaited at a time.
	maxStreams = 4
	// leastWait is the least time between two streams that are opened because answers are overdue.
	leastWait = 100 * time.Millisecond

	pauseMin = 20 * time.Millisecond
	pauseMax = 500 * time.Millisecond
)

// NewID returns a random id for a lease, never 0, so that no two callers choose the same and none
// guesses another's.
func NewID() int64 { return 1 + rand.Int64N(math.MaxInt64) }

// Renew renews a lease once, over its stream, and returns the time to live.
type Renew func() (ttl time.Duration, err error)

// Lease is a lease to be kept. All fields but Renewed are required.
type Lease struct {
	// Deadline is when the lease lapses unless it is renewed before.
	Deadline time.Time
	// Interval is the time from one renewal to the next.
	Interval time.Duration
	// Due is when the first renewal is due: an interval after the lease was asked for, which may be
	// past.
	Due time.Time
	// Patience is the least time that an answer may take.
	Patience time.Duration
	// Open opens a stream that ends with ctx. It waits while there is no connection to any server.
	Open func(ctx context.Context) (Renew, error)
	// Renewed is called with each new deadline: the time to live after the sending of the renewal that
	// was answered. It may be nil.
	Renewed func(deadline time.Time)
}

// stream is one stream of renewals.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	asked  chan struct{} // holds a token when a renewal is due
	sent   time.Time     // of the renewal that is under way
	open   atomic.Bool   // Open has returned
}

// answer is what came of a renewal.
type answer struct {
	stream *stream
	ttl    time.Duration
	err    error
}

// keeper is the state of Keep.
type keeper struct {
	lease    Lease
	answers  chan answer
	running  sync.WaitGroup
	busy     map[*stream]struct{} // those whose answer is awaited
	idle     []*stream            // those that have answered, the last one last
	sent     time.Time            // of the last renewal
	patience time.Duration
	last     error // why a renewal failed last
}

// Keep renews a lease until ctx ends, and returns the error of ctx then. When the lease is lost,
// because its deadline has passed or the server says so (ErrGone), it returns why.
func Keep(ctx context.Context, lease Lease) error {
	ctx, cancel := context.WithCancel(ctx)
	k := &keeper{lease: lease, answers: make(chan answer), busy: map[*stream]struct{}{}, patience: lease.Patience}
	defer k.running.Wait()
	defer cancel()
	pauses := backoff.Backoff{Min: pauseMin, Max: pauseMax}
	// What is due next is another renewal: at its time, or because the answer to the one before is
	// overdue.
	due, awaiting := lease.Due, false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if due.After(k.lease.Deadline) {
			due = k.lease.Deadline
		}
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-k.answers:
			if _, ok := k.busy[a.stream]; !ok {
				continue // given up
			}
			delete(k.busy, a.stream)
			switch {
			case errors.Is(a.err, ErrGone):
				return a.err
			case a.err != nil:
				k.last = a.err
				a.stream.cancel()
				if len(k.busy) == 0 {
					// Longer pauses, such as an overloaded server asks for, must leave time for another attempt.
					due, awaiting = time.Now().Add(min(pauses.Next(a.err), max(pauseMin, k.left()/2))), false
				}
			default:
				pauses.Reset()
				k.renewed(a)
				due, awaiting = k.sent.Add(lease.Interval), false
			}
		case <-timer.C:
			if k.left() <= 0 {
				return k.lapsed()
			}
			connecting := awaiting && k.connecting()
			switch {
			case connecting:
				k.last = errors.New("no connection to a server")
			case awaiting:
				k.last = fmt.Errorf("no answer to a renewal within %v", k.patience)
				k.patience *= 2
			}
			// While one stream waits for a connection, another would wait for the same.
			if !connecting && len(k.busy) < maxStreams {
				k.send(ctx)
			}
			due, awaiting = time.Now().Add(max(leastWait, min(k.patience, k.left()/2))), true
		}
	}
}

// left is the time until the lease lapses.
func (k *keeper) left() time.Duration { return time.Until(k.lease.Deadline) }

// connecting reports whether a stream waits to be opened.
func (k *keeper) connecting() bool {
	for s := range k.busy {
		if !s.open.Load() {
			return true
		}
	}
	return false
}

func (k *keeper) lapsed() error {
	if k.last == nil {
		return errors.New("no renewal was tried in time")
	}
	return k.last
}

// send asks for a renewal over the stream that answered last, or a new one.
func (k *keeper) send(ctx context.Context) {
	var s *stream
	if n := len(k.idle); n > 0 {
		s, k.idle = k.idle[n-1], k.idle[:n-1]
	} else {
		s = &stream{asked: make(chan struct{}, 1)}
		s.ctx, s.cancel = context.WithCancel(ctx)
		k.running.Go(func() { k.serve(s) })
	}
	s.sent = time.Now()
	k.sent = s.sent
	k.busy[s] = struct{}{}
	s.asked <- struct{}{}
}

// serve opens a stream and makes the renewals that it is asked for, until one fails or the stream
// is given up.
func (k *keeper) serve(s *stream) {
	defer s.cancel()
	var renew Renew
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.asked:
		}
		a := answer{stream: s}
		if renew == nil {
			renew, a.err = k.lease.Open(s.ctx)
			s.open.Store(true)
		}
		if a.err == nil {
			a.ttl, a.err = renew()
		}
		select {
		case <-s.ctx.Done():
			return
		case k.answers <- a:
		}
		if a.err != nil {
			return
		}
	}
}

// renewed takes the answer of a stream. Streams that were asked before it and have not answered are
// given up. Slow servers are asked over a second stream while the first waits, so that is kept as
// long as they are slow.
func (k *keeper) renewed(a answer) {
	if deadline := a.stream.sent.Add(a.ttl); deadline.After(k.lease.Deadline) {
		k.lease.Deadline = deadline
		if k.lease.Renewed != nil {
			k.lease.Renewed(deadline)
		}
	}
	k.patience = max(k.lease.Patience, (k.patience+2*time.Since(a.stream.sent))/2)
	for s := range k.busy {
		if s.sent.Before(a.stream.sent) {
			s.cancel()
			delete(k.busy, s)
		}
	}
	k.idle = append(k.idle, a.stream)
	keep := 1
	if k.patience > k.lease.Patience {
		keep = 2
	}
	for len(k.idle) > keep {
		k.idle[0].cancel()
		k.idle = k.idle[1:]
	}
}
