package listener

import (
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
)

const (
	// enoughChecks is one more than the failed checks that a load balancer takes a server out for: the
	// last shows that it has.
	enoughChecks = 3
	// recently is how long ago the last check may be of a load balancer that is there, and leaveLimit
	// how long one is waited for that ends itself meanwhile.
	recently   = 6 * time.Second
	leaveLimit = 6 * time.Second
)

// checks are those by which a load balancer looks whether the gateway is well.
type checks struct {
	last   time.Time
	failed int // since the gateway leaves
}

// OpenWhen fails the checks of load balancers until ready is closed. Connections that come all the
// same are taken.
func (s *Set) OpenWhen(ready <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = ready
}

// Leave fails the checks of load balancers from now on, and returns when each of them has noticed.
// Connections are taken and served as ever meanwhile: so none is sent to a gateway that takes no
// more, and none is lost. Without load balancers it returns at once.
func (s *Set) Leave() {
	s.mu.Lock()
	s.left = make(chan struct{})
	noticed := s.allNoticed()
	s.mu.Unlock()
	if noticed {
		return
	}
	limit := time.NewTimer(leaveLimit)
	defer limit.Stop()
	select {
	case <-s.left:
	case <-limit.C:
		s.log.Info("Stopping although a load balancer stopped its health checks",
			zap.Duration(metrics.KeyWaited, leaveLimit))
	}
}

// checkFails notes a load balancer's check, and reports whether it must fail.
func (s *Set) checkFails(source netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	c := s.checks[source]
	if c == nil {
		for other, c := range s.checks {
			if now.Sub(c.last) > recently {
				delete(s.checks, other)
			}
		}
		c = &checks{}
		s.checks[source] = c
	}
	c.last = now
	if s.left == nil {
		return !s.isOpen()
	}
	c.failed++
	if c.failed == enoughChecks && s.allNoticed() && !closed(s.left) {
		close(s.left)
	}
	return true
}

// isOpen reports whether the gateway takes calls. The caller holds s.mu.
func (s *Set) isOpen() bool { return s.ready == nil || closed(s.ready) }

// closed reports whether a channel that nothing is sent on is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// allNoticed reports whether every present load balancer has seen that the gateway leaves. The
// caller holds s.mu.
func (s *Set) allNoticed() bool {
	for _, c := range s.checks {
		if c.failed < enoughChecks && time.Since(c.last) < recently {
			return false
		}
	}
	return true
}
