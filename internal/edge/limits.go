package edge

import (
	"errors"
	"fmt"
	"time"
)

// Limits are the limits of one server. The zero value of a field stands for that of DefaultLimits.
type Limits struct {
	// HandshakeTimeout is how long a connection may take until its caller has authenticated: by the
	// certificate of the handshake, or by the token of its first call. It is closed then.
	HandshakeTimeout time.Duration `yaml:"handshakeTimeout" help:"how long a connection may take to authenticate"`
	// PendingConnections bounds the connections that are authenticating: what the server spends on
	// them, processor time and memory, is bounded by it. Further ones wait.
	PendingConnections int `yaml:"pendingConnections" help:"connections that are authenticating at once; further ones wait"`
	// PendingConnectionsPerSource bounds those of one source address. One that waits takes the place
	// of one whose client has sent nothing for a second, or has been silent since for half of
	// HandshakeTimeout. It should be more than ConnectionsPerSecond times that half, so that one
	// stranger cannot keep others at its address out.
	PendingConnectionsPerSource int `yaml:"pendingConnectionsPerSource" help:"connections of one source that authenticate at once"`
	// WaitingConnections bounds the connections that wait to authenticate. More are refused.
	WaitingConnections int `yaml:"waitingConnections" help:"connections that wait to authenticate; more are refused"`
	// WaitingConnectionsPerSource bounds those of one source address.
	WaitingConnectionsPerSource int `yaml:"waitingConnectionsPerSource" help:"connections of one source that wait; more are refused"`
	// WaitTimeout is how long a connection waits at most; it is refused then. It should be well below
	// what clients are patient: Xebec's are for 20 s.
	WaitTimeout time.Duration `yaml:"waitTimeout" help:"how long a connection waits to authenticate; it is refused then"`
	// ConnectionsPerSecond bounds the connections of one source address that end without having
	// authenticated; those that the server cuts for their time or to make room are not counted.
	ConnectionsPerSecond float64 `yaml:"connectionsPerSecond" help:"connections per second of one source that end unauthenticated"`
	// ConnectionsBurst is how many such connections may come at once.
	ConnectionsBurst int `yaml:"connectionsBurst" help:"such connections that may come at once"`
	// FailuresPerSecond bounds the calls of one source address that fail to authenticate. While there
	// are more, tokens from there that are not known yet are refused without a look, and the
	// connections that send them are closed.
	FailuresPerSecond float64 `yaml:"failuresPerSecond" help:"calls per second of one source address that fail to authenticate"`
	// FailuresBurst is how many such calls may come at once.
	FailuresBurst int `yaml:"failuresBurst" help:"such calls that may come at once"`
	// ConnectionsPerCaller bounds the open connections of one caller that has authenticated.
	ConnectionsPerCaller int `yaml:"connectionsPerCaller" help:"open connections of one caller that has authenticated"`
	// ReceivingPerCaller bounds the requests of one caller that are received at once; further ones
	// wait. The largest request has 4 MiB.
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

// Validate returns all problems; key is what precedes the names of the fields in the configuration,
// such as "limits".
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
