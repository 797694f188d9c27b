// Package edge limits what callers can cost a server before and while it learns who they are: connections that have not
// authenticated, how long they may take, how often one source address may connect and fail, and how many messages of one
// caller are received at once. It knows nothing of gRPC, certificates or tokens: package rpc tells it what happened.
//
// All limits are per source address or per caller, so that one of them cannot use up what is there for the others. An IPv6
// source is its /64 prefix, since one host owns that many addresses. Callers that authenticate do not count against the
// limits of their source: many nodes or people may share one address behind NAT or a load balancer. When thousands of them
// connect at once, after a restart of the server, a bounded number authenticates at a time, in the order in which they came,
// and the others wait: see queue.go.
package edge

import (
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits are the limits of one server. The zero value of a field stands for that of DefaultLimits.
type Limits struct {
	// HandshakeTimeout is how long a connection may take until its caller has authenticated: by the certificate of the
	// handshake, or by the token of its first call. It is closed then.
	HandshakeTimeout time.Duration `yaml:"handshakeTimeout" help:"how long a connection may take to authenticate"`
	// PendingConnections bounds the connections that are authenticating: what the server spends on them, processor time and
	// memory, is bounded by it. Further ones wait.
	PendingConnections int `yaml:"pendingConnections" help:"connections that are authenticating at once; further ones wait"`
	// PendingConnectionsPerSource bounds those of one source address. One that waits takes the place of one whose client has
	// sent nothing for a second, or has been silent since for half of HandshakeTimeout. It should be more than
	// ConnectionsPerSecond times that half, so that one stranger cannot keep others at its address out.
	PendingConnectionsPerSource int `yaml:"pendingConnectionsPerSource" help:"connections of one source address that are authenticating at once; further ones wait"`
	// WaitingConnections bounds the connections that wait to authenticate. More are refused.
	WaitingConnections int `yaml:"waitingConnections" help:"connections that wait to authenticate; more are refused"`
	// WaitingConnectionsPerSource bounds those of one source address.
	WaitingConnectionsPerSource int `yaml:"waitingConnectionsPerSource" help:"connections of one source address that wait to authenticate; more are refused"`
	// WaitTimeout is how long a connection waits at most; it is refused then. It should be well below what clients are patient:
	// Xebec's are for 20 s.
	WaitTimeout time.Duration `yaml:"waitTimeout" help:"how long a connection waits to authenticate; it is refused then"`
	// ConnectionsPerSecond bounds the connections of one source address that end without having authenticated; those that
	// the server cuts for their time or to make room are not counted.
	ConnectionsPerSecond float64 `yaml:"connectionsPerSecond" help:"connections per second of one source address that end without having authenticated"`
	// ConnectionsBurst is how many such connections may come at once.
	ConnectionsBurst int `yaml:"connectionsBurst" help:"such connections that may come at once"`
	// FailuresPerSecond bounds the calls of one source address that fail to authenticate. While there are more, tokens from
	// there that are not known yet are refused without a look, and the connections that send them are closed.
	FailuresPerSecond float64 `yaml:"failuresPerSecond" help:"calls per second of one source address that fail to authenticate"`
	// FailuresBurst is how many such calls may come at once.
	FailuresBurst int `yaml:"failuresBurst" help:"such calls that may come at once"`
	// ConnectionsPerCaller bounds the open connections of one caller that has authenticated.
	ConnectionsPerCaller int `yaml:"connectionsPerCaller" help:"open connections of one caller that has authenticated"`
	// ReceivingPerCaller bounds the requests of one caller that are received at once; further ones wait. The largest
	// request has 4 MiB.
	ReceivingPerCaller int `yaml:"receivingPerCaller" help:"requests of one caller that are received at once; further ones wait"`
	// ReceiveTimeout is how long one request may take to arrive.
	ReceiveTimeout time.Duration `yaml:"receiveTimeout" help:"how long a request may take to arrive"`
}

// DefaultLimits are those of every server unless its configuration says otherwise.
func DefaultLimits() Limits {
	return Limits{
		HandshakeTimeout:            10 * time.Second,
		PendingConnections:          4096,
		PendingConnectionsPerSource: 512,
		WaitingConnections:          16384,
		WaitingConnectionsPerSource: 8192,
		WaitTimeout:                 8 * time.Second,
		ConnectionsPerSecond:        100,
		ConnectionsBurst:            500,
		FailuresPerSecond:           20,
		FailuresBurst:               200,
		ConnectionsPerCaller:        512,
		ReceivingPerCaller:          8,
		ReceiveTimeout:              30 * time.Second,
	}
}

// WithDefaults returns the limits with every zero field filled.
func (l Limits) WithDefaults() Limits {
	d := DefaultLimits()
	fill(&l.HandshakeTimeout, d.HandshakeTimeout)
	fill(&l.PendingConnections, d.PendingConnections)
	fill(&l.PendingConnectionsPerSource, d.PendingConnectionsPerSource)
	fill(&l.WaitingConnections, d.WaitingConnections)
	fill(&l.WaitingConnectionsPerSource, d.WaitingConnectionsPerSource)
	fill(&l.WaitTimeout, d.WaitTimeout)
	fill(&l.ConnectionsPerSecond, d.ConnectionsPerSecond)
	fill(&l.ConnectionsBurst, d.ConnectionsBurst)
	fill(&l.FailuresPerSecond, d.FailuresPerSecond)
	fill(&l.FailuresBurst, d.FailuresBurst)
	fill(&l.ConnectionsPerCaller, d.ConnectionsPerCaller)
	fill(&l.ReceivingPerCaller, d.ReceivingPerCaller)
	fill(&l.ReceiveTimeout, d.ReceiveTimeout)
	return l
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns all problems; key is what precedes the names of the fields in the configuration, such as "limits".
func (l Limits) Validate(key string) error {
	var problems []error
	for _, field := range []struct {
		name  string
		value float64
	}{
		{"handshakeTimeout", float64(l.HandshakeTimeout)}, {"pendingConnections", float64(l.PendingConnections)},
		{"pendingConnectionsPerSource", float64(l.PendingConnectionsPerSource)}, {"waitingConnections", float64(l.WaitingConnections)},
		{"waitingConnectionsPerSource", float64(l.WaitingConnectionsPerSource)}, {"waitTimeout", float64(l.WaitTimeout)},
		{"connectionsPerSecond", l.ConnectionsPerSecond},
		{"connectionsBurst", float64(l.ConnectionsBurst)}, {"failuresPerSecond", l.FailuresPerSecond},
		{"failuresBurst", float64(l.FailuresBurst)}, {"connectionsPerCaller", float64(l.ConnectionsPerCaller)},
		{"receivingPerCaller", float64(l.ReceivingPerCaller)}, {"receiveTimeout", float64(l.ReceiveTimeout)},
	} {
		if field.value < 0 {
			problems = append(problems, fmt.Errorf("%s.%s: must not be negative; 0 is the default", key, field.name))
		}
	}
	return errors.Join(problems...)
}

// Reasons why a connection is refused or closed, the label of the counter.
const (
	// ReasonPending: too many connections that have not authenticated, or it waited too long for its turn.
	ReasonPending = "pending"
	// ReasonRate: the source connects too often without authenticating.
	ReasonRate = "rate"
	// ReasonTimeout: it did not authenticate in time.
	ReasonTimeout = "timeout"
	// ReasonFailures: too many calls on it failed to authenticate.
	ReasonFailures = "failures"
	// ReasonExpired: the certificate of its caller has expired.
	ReasonExpired = "expired"
)

// RefusedError says why a connection is not taken.
type RefusedError struct {
	// Reason is one of the constants above.
	Reason string
	text   string
}

func (e *RefusedError) Error() string { return e.text }

const (
	// yieldAge is after what time a connection whose client has sent nothing makes room for one that waits. The time that the
	// server takes itself, when it is busy, is no silence. A client that has begun its handshake gets more: of thousands that
	// connect at once some are slow, and the work for them would be lost.
	yieldAge = time.Second
	// failuresPerConnection is how many calls of one connection may fail to authenticate before it is closed.
	failuresPerConnection = 20
	// maxSources bounds the memory for sources. A forgotten source starts over with full buckets.
	maxSources = 16384
)

// Guard counts the connections of one server. It is safe for concurrent use.
type Guard struct {
	limits Limits
	// closed is told of each connection that is refused or closed, with the reason.
	closed func(reason string)

	mu      sync.Mutex
	pending list.List // of *Connection, oldest first
	sources map[netip.Prefix]*list.Element
	recent  list.List // of *source, most recently used first
	callers map[string]int
	// connections is the sum of callers.
	connections int
	// turns are the sources of which connections wait, in the order of their turns, and waiting is how many connections wait.
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

// NewGuard returns a guard; closed, when not nil, is called for each connection that it refuses or closes.
func NewGuard(limits Limits, closed func(reason string)) *Guard {
	if closed == nil {
		closed = func(string) {}
	}
	g := &Guard{limits: limits.WithDefaults(), closed: closed, sources: make(map[netip.Prefix]*list.Element), callers: make(map[string]int), began: time.Now()}
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

// source returns what is known of a source, and forgets the one used longest ago when there are too many. The caller
// holds g.mu.
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
