// Package edge limits what callers can cost a server before and while it learns who they are: connections that have not
// authenticated, how long they may take, how often one source address may connect and fail, and how many messages of one
// caller are received at once. It knows nothing of gRPC, certificates or tokens: package rpc tells it what happened.
//
// All limits are per source address or per caller, so that one of them cannot use up what is there for the others. An IPv6
// source is its /64 prefix, since one host owns that many addresses. Callers that authenticate do not count against the
// limits of their source: many nodes or people may share one address behind NAT or a load balancer.
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
	// PendingConnections bounds the connections that have not authenticated yet.
	PendingConnections int `yaml:"pendingConnections" help:"connections that have not authenticated yet, at once"`
	// PendingConnectionsPerSource bounds those of one source address. A new one takes the place of the oldest when that is
	// older than a second, else it is refused.
	PendingConnectionsPerSource int `yaml:"pendingConnectionsPerSource" help:"connections of one source address that have not authenticated yet, at once"`
	// ConnectionsPerSecond bounds the connections of one source address that never authenticate; those that do are not
	// counted.
	ConnectionsPerSecond float64 `yaml:"connectionsPerSecond" help:"connections per second of one source address that do not authenticate"`
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
		PendingConnections:          1024,
		PendingConnectionsPerSource: 128,
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
		{"pendingConnectionsPerSource", float64(l.PendingConnectionsPerSource)}, {"connectionsPerSecond", l.ConnectionsPerSecond},
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
	// ReasonPending: too many connections that have not authenticated.
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
	// yieldAge is how old a connection that has not authenticated is when it makes room for a new one.
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
	pending list.List // of *Visitor, oldest first
	sources map[netip.Prefix]*list.Element
	recent  list.List // of *source, most recently used first
	callers map[string]int
}

// source is one address that connections come from.
type source struct {
	prefix      netip.Prefix
	pending     list.List // of *Visitor, oldest first
	connections *rate.Limiter
	failures    *rate.Limiter
}

// NewGuard returns a guard; closed, when not nil, is called for each connection that it refuses or closes.
func NewGuard(limits Limits, closed func(reason string)) *Guard {
	if closed == nil {
		closed = func(string) {}
	}
	return &Guard{limits: limits.WithDefaults(), closed: closed, sources: make(map[netip.Prefix]*list.Element), callers: make(map[string]int)}
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

// Enter counts a connection in, before its handshake, and returns a *RefusedError when the connection is not to be taken.
// cut closes it: Enter arranges that it is called when the connection does not authenticate in time, has to make room or
// fails too often. Every visitor must leave.
func (g *Guard) Enter(addr netip.Addr, cut func()) (*Visitor, error) {
	v, evicted, err := g.enter(addr, cut)
	if evicted != nil {
		evicted.cutFor(ReasonPending)
	}
	if err != nil {
		g.closed(err.Reason)
		return nil, err
	}
	return v, nil
}

func (g *Guard) enter(addr netip.Addr, cut func()) (*Visitor, *Visitor, *RefusedError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	s := g.source(prefixOf(addr))
	if !s.connections.AllowN(now, 1) {
		return nil, nil, &RefusedError{ReasonRate, fmt.Sprintf("%s makes more than %g connections per second that do not authenticate", s.prefix, g.limits.ConnectionsPerSecond)}
	}
	var evicted *Visitor
	var full *list.List
	switch {
	case s.pending.Len() >= g.limits.PendingConnectionsPerSource:
		full = &s.pending
	case g.pending.Len() >= g.limits.PendingConnections:
		full = &g.pending
	}
	if full != nil {
		oldest := full.Front().Value.(*Visitor)
		if now.Sub(oldest.entered) < yieldAge {
			return nil, nil, &RefusedError{ReasonPending, fmt.Sprintf("%d connections have not authenticated yet, %d of them of %s",
				g.pending.Len(), s.pending.Len(), s.prefix)}
		}
		oldest.settle()
		evicted = oldest
	}
	v := &Visitor{guard: g, source: s, entered: now, cut: cut}
	v.ofAll, v.ofSource = g.pending.PushBack(v), s.pending.PushBack(v)
	v.timer = time.AfterFunc(g.limits.HandshakeTimeout, v.timeout)
	return v, evicted, nil
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
		// Its visitors keep it; a new connection from there finds full buckets.
		oldest := g.recent.Remove(g.recent.Back()).(*source)
		delete(g.sources, oldest.prefix)
	}
	return s
}
