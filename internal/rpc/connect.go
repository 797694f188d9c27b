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
		// The dialer and AdaptiveCredentials have shorter limits for their parts.
		MinConnectTimeout: longestHandshake + connectTimeout,
	}
}

// AdaptiveCredentials returns credentials whose client handshakes have a timeout that adapts to
// the peer: short for one that hangs, and longer from attempt to attempt for one that is slow.
func AdaptiveCredentials(of credentials.TransportCredentials) credentials.TransportCredentials {
	return &adaptiveCredentials{TransportCredentials: of, limit: &handshakeLimit{limit: firstHandshake}}
}

type adaptiveCredentials struct {
	credentials.TransportCredentials
	limit *handshakeLimit
}

// handshakeLimit is the adaptive timeout that the handshakes of one connection share.
type handshakeLimit struct {
	mu    sync.Mutex
	limit time.Duration
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *adaptiveCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	limit := c.limit.get()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, info, err := c.TransportCredentials.ClientHandshake(bounded, authority, raw)
	switch {
	case err == nil:
		c.limit.set(firstHandshake)
	case bounded.Err() == context.DeadlineExceeded:
		c.limit.set(min(2*limit, longestHandshake))
	}
	return conn, info, err
}

func (l *handshakeLimit) get() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}

func (l *handshakeLimit) set(limit time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
}

// Clone implements credentials.TransportCredentials; the copy shares the limit.
func (c *adaptiveCredentials) Clone() credentials.TransportCredentials {
	return &adaptiveCredentials{TransportCredentials: c.TransportCredentials.Clone(), limit: c.limit}
}
