package rpc

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of silence: how long the kernel of a peer may leave data or keepalive probes unacknowledged before the
// connection is given up. Kernels acknowledge also while the program that they run is stopped or starved, so that a short
// limit ends no connection to a peer that is only slow.
const (
	// DefaultSilence is for connections within the control plane and from node agents to it. It has to be well under the
	// time in which etcd replaces a leader and its clients move, for calls to go on by then.
	DefaultSilence = 2 * time.Second
	// NodeSilence is for the connections of node agents, which are many and mostly idle.
	NodeSilence = 5 * time.Second
	// PatientSilence is for connections of people, who may be on networks that lose packets, and to node agents, of which
	// one process has thousands.
	PatientSilence = 10 * time.Second
)

// probeInterval is the time between keepalive probes of a connection on which nothing comes; the kernel counts seconds.
const probeInterval = time.Second

// ContextDialer returns a function that connects by TCP and whose connections fail once the peer's kernel has been
// silent for the limit, a second or more, whether they are idle (keepalive probes) or have sent data (TCP_USER_TIMEOUT):
// gRPC's own keepalive cannot be quicker than ten seconds, and it asks the program, which may be busy. It is for
// grpc.WithContextDialer. The connections fail with ETIMEDOUT, or with the error that the network reported meanwhile.
func ContextDialer(silence time.Duration) func(ctx context.Context, addr string) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout: max(connectTimeout, silence),
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true,
			// The user timeout decides when the probes have gone unanswered for too long, so that their count does not matter.
			Idle: max(probeInterval, silence/2), Interval: probeInterval, Count: 127,
		},
		Control: func(_, _ string, raw syscall.RawConn) error {
			var option error
			err := raw.Control(func(fd uintptr) {
				option = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
			})
			if err != nil {
				return err
			}
			return option
		},
	}
	// As for listeners: Go would ask for MPTCP, which costs every connection.
	dialer.SetMultipathTCP(false)
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return silentConn{conn}, nil
	}
}

// silentConn hides from gRPC that the connection is TCP: gRPC sets TCP_USER_TIMEOUT of connections that it knows to be
// to its own keepalive's timeout.
type silentConn struct{ net.Conn }
