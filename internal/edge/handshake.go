package rpc

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/metrics"
)

// connectionInfo is what a server knows of a connection.
type connectionInfo struct {
	credentials.TLSInfo
	connection *edge.Connection
}

// leaf returns the verified certificate of the client, nil when it showed none.
func (i connectionInfo) leaf() *x509.Certificate {
	if len(i.State.VerifiedChains) == 0 {
		return nil
	}
	return i.State.VerifiedChains[0][0]
}

// connectionOf returns the connection that a peer is, nil for one of another kind of connection.
func connectionOf(p *peer.Peer) *edge.Connection {
	info, _ := p.AuthInfo.(connectionInfo)
	return info.connection
}

// watchedCredentials asks who may connect at all, limits those who have not authenticated, and logs which peers were
// refused at the handshake and why: gRPC keeps that to itself.
type watchedCredentials struct {
	credentials.TransportCredentials
	admit func(net.Conn) error
	guard *edge.Guard
	// draining ends when the server stops: connections that wait for their turn are refused then.
	draining context.Context
	timeout  time.Duration
	log      *zap.Logger
	sampled  *sampler
}

// ServerHandshake implements credentials.TransportCredentials.
func (c watchedCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c.admit != nil {
		if err := c.admit(conn); err != nil {
			return nil, nil, err
		}
	}
	connection, err := c.guard.Enter(c.draining, addressOf(conn.RemoteAddr()), func() { _ = conn.Close() })
	if err != nil {
		c.tell(conn, zapcore.InfoLevel, err)
		return nil, nil, err
	}
	if hungUp(conn) {
		// Its client has lost patience. What it sent would be read, and answered at the cost of a signature.
		connection.Withdraw()
		return nil, nil, io.EOF
	}
	// gRPC lifts it when the connection is ready; from then on the connection is watched.
	if err := conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		connection.Leave()
		return nil, nil, err
	}
	secure, info, err := c.TransportCredentials.ServerHandshake(readConn{conn, connection})
	if err != nil {
		connection.Leave()
		level := zapcore.InfoLevel
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			// It went away without a word, as load balancers do every second that only look whether somebody listens.
			level = zapcore.DebugLevel
		}
		c.tell(conn, level, err)
		return nil, nil, err
	}
	known := connectionInfo{connection: connection}
	known.TLSInfo, _ = info.(credentials.TLSInfo)
	if leaf := known.leaf(); leaf != nil && leaf.Subject.CommonName != "" {
		// One that has too many connections may wait here for the end of another, for as long as a stranger may.
		if connection.Authenticated(leaf.Subject.CommonName) == nil {
			connection.ExpireAt(leaf.NotAfter)
		}
	}
	return &countedConn{secure, connection}, known, nil
}

// hungUp reports whether the other end of a connection has closed it. It does not wait, and says no of what is no socket.
func hungUp(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		gone = err == nil && n > 0 && poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return err == nil && gone
}

// Clone implements credentials.TransportCredentials.
func (c watchedCredentials) Clone() credentials.TransportCredentials {
	c.TransportCredentials = c.TransportCredentials.Clone()
	return c
}

// tell logs a sample of the connections that were refused.
func (c watchedCredentials) tell(conn net.Conn, level zapcore.Level, err error) {
	unlogged, ok := 0, true
	if level > zapcore.DebugLevel {
		unlogged, ok = c.sampled.take()
	}
	if ok {
		c.log.Log(level, "Refused a connection", zap.Stringer(metrics.KeyPeer, conn.RemoteAddr()), zap.Error(err), zap.Int("unlogged", unlogged))
	}
}

// addressOf returns the address of a connection's other end, the zero one when it has none.
func addressOf(addr net.Addr) netip.Addr {
	from, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr()
}

// readConn tells its connection when the server waits for the client.
type readConn struct {
	net.Conn
	connection *edge.Connection
}

// Read implements net.Conn.
func (c readConn) Read(b []byte) (int, error) {
	c.connection.Reading()
	defer c.connection.Read()
	return c.Conn.Read(b)
}

// countedConn counts its connection out when it is closed.
type countedConn struct {
	net.Conn
	connection *edge.Connection
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.connection.Leave()
	return c.Conn.Close()
}

// connectionGauges export how many connections there are, before and after their callers have authenticated.
func connectionGauges(guard *edge.Guard) []prometheus.Collector {
	read := func(f func() int) func() float64 { return func() float64 { return float64(f()) } }
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metrics.RPCPendingConnections, Help: "Connections whose callers are authenticating.",
		}, read(guard.Pending)),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metrics.RPCWaitingConnections, Help: "Connections that wait for others to authenticate first.",
		}, read(guard.Waiting)),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metrics.RPCConnections, Help: "Open connections whose callers have authenticated.",
		}, read(guard.Connections)),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metrics.RPCCallers, Help: "Callers that have authenticated and have connections open.",
		}, read(guard.Callers)),
	}
}

// sampler lets the log have ten entries at once and one a second of what strangers can cause any number of.
type sampler struct {
	mu      sync.Mutex
	limiter *rate.Limiter
	left    int
}

func newSampler() *sampler { return &sampler{limiter: rate.NewLimiter(1, 10)} }

// take reports whether to log, and how many entries were left out before.
func (s *sampler) take() (leftOut int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.limiter.Allow() {
		s.left++
		return 0, false
	}
	leftOut, s.left = s.left, 0
	return leftOut, true
}
