package rpc

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bounds what one caller may ask of a server.
type Limits struct {
	// PerSecond is how many calls a second are sustained; 0 for no limit.
	PerSecond float64 `yaml:"perSecond" help:"calls per second that are sustained, 0 for no limit"`
	// Burst is how many calls may come at once.
	Burst int `yaml:"burst" help:"calls that may come at once"`
}

// maxCallers bounds the memory for callers' buckets. A forgotten caller starts over with a full bucket.
const maxCallers = 4096

// limiter keeps a token bucket per caller, for those seen last.
type limiter struct {
	limits  func(Identity) Limits
	refused func(reason string)

	mu      sync.Mutex
	buckets map[string]*list.Element // of *bucket
	recent  list.List                // most recent first
}

type bucket struct {
	user   string
	tokens *rate.Limiter
}

func newLimiter(limits func(Identity) Limits, refused func(reason string)) *limiter {
	return &limiter{limits: limits, refused: refused, buckets: make(map[string]*list.Element)}
}

// admit takes a token from the caller's bucket or says when there will be one.
func (l *limiter) admit(id Identity) error {
	if l.limits == nil {
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

func (l *limiter) bucket(id Identity) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if element, ok := l.buckets[id.User]; ok {
		l.recent.MoveToFront(element)
		return element.Value.(*bucket).tokens
	}
	limits := l.limits(id)
	var tokens *rate.Limiter
	if limits.PerSecond > 0 {
		tokens = rate.NewLimiter(rate.Limit(limits.PerSecond), max(limits.Burst, 1))
	}
	l.buckets[id.User] = l.recent.PushFront(&bucket{user: id.User, tokens: tokens})
	if len(l.buckets) > maxCallers {
		oldest := l.recent.Back()
		l.recent.Remove(oldest)
		delete(l.buckets, oldest.Value.(*bucket).user)
	}
	return tokens
}
