package edge

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates bounds the calls of one caller.
type Rates struct {
	// PerSecond is how many calls a second are sustained; 0 for no limit.
	PerSecond float64 `yaml:"perSecond" help:"calls per second that are sustained, 0 for no limit"`
	// Burst is how many calls may come at once.
	Burst int `yaml:"burst" help:"calls that may come at once"`
}

// maxCallers bounds the memory for callers' buckets. A forgotten caller starts over with a full
// bucket.
const maxCallers = 4096

// rateLimiter keeps a token bucket per caller, for those that called last.
type rateLimiter struct {
	rates   func(Identity) Rates
	refused func(reason string)

	mu      sync.Mutex
	buckets map[string]*list.Element // of *bucket
	recent  list.List                // most recent first
}

type bucket struct {
	user   string
	tokens *rate.Limiter
}

func newRateLimiter(rates func(Identity) Rates, refused func(reason string)) *rateLimiter {
	return &rateLimiter{rates: rates, refused: refused, buckets: make(map[string]*list.Element)}
}

// admit takes a token from the caller's bucket, or returns an error with the time to wait for one.
func (l *rateLimiter) admit(id Identity) error {
	if l.rates == nil {
		return nil
	}
	tokens := l.bucket(id)
	if tokens == nil {
		return nil
	}
	reservation := tokens.Reserve()
	delay := reservation.Delay()
	if delay == 0 {
		return nil
	}
	reservation.Cancel()
	l.refused(ReasonRateLimited)
	return refuseFor(delay, ReasonRateLimited, "%q makes more than %g calls per second: try again in %s",
		id.User, float64(tokens.Limit()), delay.Round(time.Millisecond))
}

func (l *rateLimiter) bucket(id Identity) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if element, ok := l.buckets[id.User]; ok {
		l.recent.MoveToFront(element)
		return element.Value.(*bucket).tokens
	}
	rates := l.rates(id)
	var tokens *rate.Limiter
	if rates.PerSecond > 0 {
		tokens = rate.NewLimiter(rate.Limit(rates.PerSecond), max(rates.Burst, 1))
	}
	l.buckets[id.User] = l.recent.PushFront(&bucket{user: id.User, tokens: tokens})
	if len(l.buckets) > maxCallers {
		oldest := l.recent.Back()
		l.recent.Remove(oldest)
		delete(l.buckets, oldest.Value.(*bucket).user)
	}
	return tokens
}
