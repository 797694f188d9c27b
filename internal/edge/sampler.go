package edge

import (
	"sync"

	"golang.org/x/time/rate"
)

// Sampler bounds the log of what unauthenticated callers can cause any number of: ten entries at
// once and one a second. It is safe for concurrent use.
type Sampler struct {
	mu      sync.Mutex
	limiter *rate.Limiter
	left    int
}

// NewSampler returns a sampler.
func NewSampler() *Sampler { return &Sampler{limiter: rate.NewLimiter(1, 10)} }

// Take reports whether to log an entry, and how many were left out before it.
func (s *Sampler) Take() (leftOut int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.limiter.Allow() {
		s.left++
		return 0, false
	}
	leftOut, s.left = s.left, 0
	return leftOut, true
}
