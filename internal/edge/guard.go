package edge

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Reasons why a connection is refused or closed, the label of the counter.
const (
	// ClosedPending: too many connections that have not authenticated, or it waited too long for its
	// turn.
	ClosedPending = "pending"
	// ClosedRate: the source connects too often without authenticating.
	ClosedRate = "rate"
	// ClosedTimeout: it did not authenticate in time.
	ClosedTimeout = "timeout"
	// ClosedFailures: too many calls on it failed to authenticate.
	ClosedFailures = "failures"
	// ClosedExpired: the certificate of its caller has expired.
	ClosedExpired = "expired"
)

// RefusedError is the reason why a connection is refused.
type RefusedError struct {
	// Reason is one of the constants above.
	Reason string
	text   string
}

func (e *RefusedError) Error() string { return e.text }

const (
	// yieldAge is after what time a connection whose client has sent nothing makes room for one that
	// waits. The time that the server takes itself, when it is busy, is no silence. A client that has
	// begun its handshake gets more: of thousands that connect at once some are slow, and the work for
	// them would be lost.
	yieldAge = time.Second
	// failuresPerConnection is how many calls of one connection may fail to authenticate before it is
	// closed.
	failuresPerConnection = 20
	// maxSources bounds the memory for sources. A forgotten source starts over with full buckets.
	maxSources = 16384
)

// Guard counts the connections of one server. It is safe for concurrent use.
type Guard struct {
	limits Limits
	// closed is called for each connection that is refused or closed, with the reason.
	closed func(reason string)

	mu      sync.Mutex
	pending list.List // of *Connection, oldest first
	sources map[netip.Prefix]*list.Element
	recent  list.List // of *source, most recently used first
	callers map[string]int
	// connections is the sum of callers.
	connections int
	// turns are the sources of which connections wait, in the order of their turns, and waiting is how
	// many connections wait.
	turns   list.List
	waiting int
	// retry looks for room while connections wait.
	retry *time.Timer
	// began is what the times of silences count from.
	began time.Time
}

// source is one address that connections come from.
type source struct {
	prefix      netip.Prefix
	pending     list.List // of *Connection, oldest first
	waiting     list.List // of *waiter, oldest first
	turn        *list.Element
	connections *rate.Limiter
	failures    *rate.Limiter
}

// NewGuard returns a guard; closed, when not nil, is called for each connection that it refuses or
// closes.
func NewGuard(limits Limits, closed func(reason string)) *Guard {
	if closed == nil {
		closed = func(string) {}
	}
	g := &Guard{
		limits: limits.WithDefaults(), closed: closed, began: time.Now(),
		sources: make(map[netip.Prefix]*list.Element), callers: make(map[string]int),
	}
	g.retry = time.AfterFunc(time.Hour, g.admitLater)
	g.retry.Stop()
	return g
}

// Waiting returns how many connections wait to authenticate.
func (g *Guard) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// Connections returns how many connections are open whose callers have authenticated.
func (g *Guard) Connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.connections
}

// Callers returns how many callers those connections are of.
func (g *Guard) Callers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.callers)
}

// Pending returns how many connections have not authenticated.
func (g *Guard) Pending() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending.Len()
}

// prefixOf returns what one source is.
func prefixOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all such connections are one source
	}
	return prefix
}

// source returns what is known of a source, and forgets the one used longest ago when there are too
// many. The caller holds g.mu.
func (g *Guard) source(prefix netip.Prefix) *source {
	if element, ok := g.sources[prefix]; ok {
		g.recent.MoveToFront(element)
		return element.Value.(*source)
	}
	s := &source{
		prefix:      prefix,
		connections: rate.NewLimiter(rate.Limit(g.limits.ConnectionsPerSecond), g.limits.ConnectionsBurst),
		failures:    rate.NewLimiter(rate.Limit(g.limits.FailuresPerSecond), g.limits.FailuresBurst),
	}
	g.sources[prefix] = g.recent.PushFront(s)
	if g.recent.Len() > maxSources {
		// Its connections keep it; a new connection from there finds full buckets.
		oldest := g.recent.Remove(g.recent.Back()).(*source)
		delete(g.sources, oldest.prefix)
	}
	return s
}
