package renewal

import (
	"sync"
	"time"
)

// answersPerTTL is how many of the slowest answers must fit into a time to live.
const answersPerTTL = 8

// Calm is the usual time for which answers must have been quick before a lease becomes shorter
// again.
const Calm = time.Minute

// TTL chooses the times to live of successive leases of one holder. A lease that was lost because a
// busy server answered too late would be lost again, and each loss causes more work for the server:
// the next lease lasts twice as long, up to Most. When all answers of a time were so quick that a
// lease of half its time to live is safe, the next one is shorter again, down to Least. All methods
// may be called concurrently.
type TTL struct {
	// Least and Most are the limits, whole seconds. Both are required.
	Least, Most time.Duration
	// Calm is for how long answers must have been quick before a lease becomes shorter again. It is
	// required.
	Calm time.Duration

	mu      sync.Mutex
	current time.Duration
	slowest time.Duration // answer since the time below
	since   time.Time
}

// Current returns the time to live for the next lease.
func (t *TTL) Current() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limited(t.current)
}

func (t *TTL) limited(d time.Duration) time.Duration { return min(max(d, t.Least), t.Most) }

// Lost doubles the time to live, because the lease of the last one was not renewed in time.
func (t *TTL) Lost() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = t.limited(2 * t.limited(t.current))
	t.slowest, t.since = 0, time.Now()
}

// Answered notes how long the answer to a renewal took. It reports whether the holder should take
// another lease, of the time to live that is then the current one, because the one that it holds
// lasts longer than it has to.
func (t *TTL) Answered(took time.Duration) (shorter bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slowest = max(t.slowest, took); time.Since(t.since) < t.Calm {
		return false
	}
	want := t.limited((answersPerTTL*t.slowest + time.Second - 1).Truncate(time.Second))
	t.slowest, t.since = 0, time.Now()
	if current := t.limited(t.current); want > current/2 {
		return false
	}
	t.current = want
	return true
}
