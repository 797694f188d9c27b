package edge

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Handshake decides whether a raw connection is accepted, waits for its turn to authenticate, and
// calls secure, which makes the TLS handshake on the connection that it is given and returns the
// verified certificate of the client, nil when the client presented none. secure's connection
// counts the Connection out when it is closed, and its deadline is the end of HandshakeTimeout: the
// caller lifts it afterwards. After an error the caller closes raw.
func (e *Entry) Handshake(raw net.Conn, secure func(net.Conn) (*x509.Certificate, error)) (*Connection, error) {
	if e.cfg.Admit != nil {
		if err := e.cfg.Admit(raw); err != nil {
			return nil, err
		}
	}
	connection, err := e.guard.Enter(e.draining, addressOf(raw.RemoteAddr()), func() { _ = raw.Close() })
	if err != nil {
		e.logRejection(raw, zapcore.InfoLevel, err)
		return nil, err
	}
	if hungUp(raw) {
		// Its client gave up. What it sent would be read, and answered at the cost of a signature.
		connection.Withdraw()
		return nil, io.EOF
	}
	if err := raw.SetDeadline(time.Now().Add(e.cfg.Limits.HandshakeTimeout)); err != nil {
		connection.Leave()
		return nil, err
	}
	leaf, err := secure(&countedConn{raw, connection})
	if err != nil {
		connection.Leave()
		level := zapcore.InfoLevel
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			// It was closed without data, as load balancers do every second to check the port.
			level = zapcore.DebugLevel
		}
		e.logRejection(raw, level, err)
		return nil, err
	}
	if leaf != nil && leaf.Subject.CommonName != "" {
		// A connection beyond the limit of its caller may wait here for another one to end, for as
		// long as one that has not authenticated may.
		if connection.Authenticated(leaf.Subject.CommonName) == nil {
			connection.ExpireAt(leaf.NotAfter)
		}
	}
	return connection, nil
}

// hungUp reports whether the other end of a connection has closed it. It does not wait, and returns
// false for a connection that is no socket.
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

// logRejection logs a sample of the connections that were refused.
func (e *Entry) logRejection(conn net.Conn, level zapcore.Level, err error) {
	unlogged, ok := 0, true
	if level > zapcore.DebugLevel {
		unlogged, ok = e.rejections.Take()
	}
	if ok {
		e.log.Log(level, "Refused a connection", zap.Stringer(metrics.KeyPeer, conn.RemoteAddr()), zap.Error(err),
			zap.Int(metrics.KeyUnlogged, unlogged))
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

// countedConn notes when the server waits for the client, and counts its Connection out when it is
// closed.
type countedConn struct {
	net.Conn
	connection *Connection
}

// Read implements net.Conn.
func (c *countedConn) Read(b []byte) (int, error) {
	c.connection.Reading()
	defer c.connection.Read()
	return c.Conn.Read(b)
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.connection.Leave()
	return c.Conn.Close()
}

// connectionGauges export the numbers of connections, before and after their callers have
// authenticated.
func connectionGauges(guard *Guard) []prometheus.Collector {
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
