package storage

import (
	"math/rand/v2"
	"sync"
	"time"
)

// adaptiveTimeout estimates how long etcd may take to answer one kind of request before another
// member is tried, as TCP's retransmission timer does (RFC 6298): the smoothed round-trip time plus
// four times its smoothed deviation. A dead member is detected soon while etcd is fast, and a slow
// member gets more time.
//
// A time-out doubles the limit until the next answer (Karn's algorithm). Every answer counts:
// unlike TCP's acknowledgements, each belongs to one request.
type adaptiveTimeout struct {
	floor, ceiling time.Duration

	mu        sync.Mutex
	known     bool // whether there was an answer
	smoothed  time.Duration
	deviation time.Duration
	backedOff time.Duration // the least limit until the next answer, 0 for none
}

// newAdaptiveTimeout returns a timeout whose limit is at least floor and, unless floor is more, at
// most ceiling.
func newAdaptiveTimeout(floor, ceiling time.Duration) *adaptiveTimeout {
	return &adaptiveTimeout{floor: floor, ceiling: max(floor, ceiling)}
}

// limit returns how long to wait for the next answer.
func (t *adaptiveTimeout) limit() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bounded(max(t.estimated(), t.backedOff))
}

// estimate is limit without the doubling by time-outs.
func (t *adaptiveTimeout) estimate() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bounded(t.estimated())
}

func (t *adaptiveTimeout) estimated() time.Duration { return t.smoothed + 4*t.deviation }

func (t *adaptiveTimeout) bounded(d time.Duration) time.Duration {
	return min(max(d, t.floor), t.ceiling)
}

// answered records the time that an answer took.
func (t *adaptiveTimeout) answered(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.backedOff = 0
	if !t.known {
		t.known, t.smoothed, t.deviation = true, took, took/2
		return
	}
	t.deviation += ((t.smoothed - took).Abs() - t.deviation) / 4
	t.smoothed += (took - t.smoothed) / 8
}

// exceeded records that a request was not answered within a limit. Many requests that exceed the
// same limit double it once.
func (t *adaptiveTimeout) exceeded(limit time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.backedOff = t.bounded(max(t.backedOff, 2*limit))
}

// jittered returns a random duration around d: from three quarters to five quarters of it.
func jittered(d time.Duration) time.Duration { return d*3/4 + rand.N(max(1, d/2)) }
