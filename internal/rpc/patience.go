package rpc

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
)

// Limits of the attempts to connect. The peer's kernel answers a TCP connection even while its
// programs starve, so that it gets little time. TLS needs the peer's program: an attempt that is
// given up makes the next one no cheaper, and two busy machines that give up early never meet.
const (
	connectTimeout = 3 * time.Second
	// firstHandshake is how long the first handshake may take: longer than a server lets connections
	// wait for their turn. It doubles when one took longer, up to longestHandshake.
	firstHandshake   = 10 * time.Second
	longestHandshake = 20 * time.Second
)

// ConnectParams are those of every connection of the cluster: a master that comes back is in use
// again within moments.
func ConnectParams() grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 1500 * time.Millisecond},
		// The dialer and PatientCredentials have shorter limits for their parts.
		MinConnectTimeout: longestHandshake + connectTimeout,
	}
}

// PatientCredentials returns credentials whose client handshakes are given up early, for a peer
// that hangs, and later from attempt to attempt, for one that is slow.
func PatientCredentials(of credentials.TransportCredentials) credentials.TransportCredentials {
	return &patientCredentials{TransportCredentials: of, patience: &patience{limit: firstHandshake}}
}

type patientCredentials struct {
	credentials.TransportCredentials
	patience *patience
}

// patience is shared by the handshakes of one connection.
type patience struct {
	mu    sync.Mutex
	limit time.Duration
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *patientCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c.patience.mu.Lock()
	limit := c.patience.limit
	c.patience.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, info, err := c.TransportCredentials.ClientHandshake(bounded, authority, raw)
	switch {
	case err == nil:
		c.patience.is(firstHandshake)
	case bounded.Err() == context.DeadlineExceeded:
		c.patience.is(min(2*limit, longestHandshake))
	}
	return conn, info, err
}

func (p *patience) is(limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
}

// Clone implements credentials.TransportCredentials; the copy shares the patience.
func (c *patientCredentials) Clone() credentials.TransportCredentials {
	return &patientCredentials{TransportCredentials: c.TransportCredentials.Clone(), patience: c.patience}
}
