package rpc

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of silence: how long the kernel of a peer may leave data or keepalive probes
// unacknowledged before the connection is given up. Kernels acknowledge also while the program that
// they run is stopped or starved, and its receive window is closed, so that a short limit ends no
// connection to a peer that is only slow.
const (
	// DefaultSilence is for connections within the control plane and from node agents to it. It has to
	// be well under the time in which etcd replaces a leader and its clients move, for calls to go on
	// by then.
	DefaultSilence = 2 * time.Second
	// NodeSilence is for the connections of node agents, which are many and mostly idle.
	NodeSilence = 5 * time.Second
	// PatientSilence is for connections of people, who may be on networks that lose packets, and to
	// node agents, of which one process has thousands.
	PatientSilence = 10 * time.Second
)

// probeInterval is the time between keepalive probes of a connection on which nothing comes; the
// kernel counts seconds.
const probeInterval = time.Second

// ContextDialer returns a function that connects by TCP and whose connections fail once the peer's
// kernel has been silent for the limit, a second or more, whether they are idle or have data that
// is not acknowledged: gRPC's own keepalive cannot be quicker than ten seconds, and it asks the
// program, which may be busy. It is for grpc.WithContextDialer. The connections fail with
// ETIMEDOUT, or with the error that the network reported meanwhile.
//
// TCP_USER_TIMEOUT would not do: it also ends connections whose peer acknowledges every probe but
// whose program does not read, so that the receive window stays closed. A server that is overloaded
// for longer than the limit would lose the connections of all of its callers at once, and be
// overloaded by their return.
func ContextDialer(silence time.Duration) func(ctx context.Context, addr string) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout: max(connectTimeout, silence),
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true,
			// The limit decides when the probes have gone unanswered for too long, so that their count does
			// not matter.
			Idle: max(probeInterval, silence/2), Interval: probeInterval, Count: 127,
		},
	}
	// As for listeners: Go would ask for MPTCP, which costs every connection.
	dialer.SetMultipathTCP(false)
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		return newSilentConn(conn, raw, silence), nil
	}
}

// silentConn fails when its peer is silent. It hides from gRPC that the connection is TCP: gRPC
// sets TCP_USER_TIMEOUT of connections that it knows to be to its own keepalive's timeout.
type silentConn struct {
	net.Conn
	raw     syscall.RawConn
	silence time.Duration
	look    *time.Timer
	// suspected tells whether the peer was silent for the limit when the kernel was asked last.
	suspected bool
	// dead is set before the connection is closed because of its peer's silence.
	dead atomic.Bool
}

func newSilentConn(conn net.Conn, raw syscall.RawConn, silence time.Duration) *silentConn {
	c := &silentConn{Conn: conn, raw: raw, silence: silence}
	ready := make(chan struct{})
	c.look = time.AfterFunc(c.interval(), func() {
		<-ready // c.look is set
		c.watch()
	})
	close(ready)
	return c
}

// interval is how often the kernel is asked for the state of the connection while its peer leaves
// something unanswered.
func (c *silentConn) interval() time.Duration { return min(c.silence/5, time.Second) }

// calm is how often it is asked otherwise: as rarely as finds a peer that becomes silent before the
// limit is over. Connections are nearly always calm, and a process has many; an idle control plane
// would spend most of its time on looking at them.
func (c *silentConn) calm() time.Duration { return c.silence - 2*c.interval() }

// watch looks whether the peer is silent, and again later unless it is or the connection has been
// closed.
func (c *silentConn) watch() {
	var info *unix.TCPInfo
	var failed error
	err := c.raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil || failed != nil {
		return // it is closed
	}
	// Both counts are of what was sent since the last acknowledgement: data again, or probes of an
	// idle connection or of a closed window. A peer whose program does not read acknowledges the
	// probes.
	unanswered := info.Retransmits > 0 || info.Probes > 0
	silent := unanswered && time.Duration(info.Last_ack_recv)*time.Millisecond >= c.silence
	// A machine that stood still finds its peers silent for as long. One more look tells: they have
	// answered by then.
	confirmed := silent && c.suspected
	c.suspected = silent
	if confirmed {
		c.dead.Store(true)
		_ = c.Conn.Close()
		return
	}
	if unanswered {
		c.look.Reset(c.interval())
		return
	}
	// All calm connections of a process are looked at in the same moment: it wakes up once for them.
	calm := c.calm()
	now := time.Now()
	c.look.Reset(now.Truncate(calm).Add(calm).Sub(now))
}

// Read implements net.Conn.
func (c *silentConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.explain("read", err)
}

// Write implements net.Conn.
func (c *silentConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.explain("write", err)
}

// Close implements net.Conn.
func (c *silentConn) Close() error {
	c.look.Stop()
	return c.Conn.Close()
}

// explain says of a connection that was closed for its peer's silence what the kernel would have
// said.
func (c *silentConn) explain(op string, err error) error {
	if err == nil || !c.dead.Load() {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, unix.ETIMEDOUT)}
}
