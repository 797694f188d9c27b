package supervisor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/lab/machine"
)

// dialLimit bounds how long a proxied connection waits for a gateway that does not answer.
const dialLimit = 3 * time.Second

// maxConns bounds the connections of one proxy; more wait in the kernel's queue.
const maxConns = 1024

// proxy carries connections from a loopback port of the real machine to an address on the wire. It
// copies bytes only: TLS is between its two ends.
type proxy struct {
	listener *net.TCPListener
	wire     *machine.Wire
	target   netip.AddrPort
	log      *zap.Logger
}

// listenProxy opens the port. The one given is used when it is free, so that a lab keeps its
// addresses.
func listenProxy(wire *machine.Wire, target netip.AddrPort, port uint16, log *zap.Logger) (*proxy, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp4", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port).String())
	if err != nil && port != 0 {
		return listenProxy(wire, target, 0, log)
	}
	if err != nil {
		return nil, err
	}
	return &proxy{listener: listener.(*net.TCPListener), wire: wire, target: target, log: log}, nil
}

// addr is the loopback address.
func (p *proxy) addr() string { return p.listener.Addr().String() }

// serve accepts connections until ctx ends, then cuts those that are left.
func (p *proxy) serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { p.listener.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := p.listener.AcceptTCP()
		if err != nil {
			<-slots
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely; connections that end give some back.
			p.log.Warn("Accept failed", zap.Error(err))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			p.carry(ctx, conn)
		})
	}
}

// carry copies both ways until both ends are done.
func (p *proxy) carry(ctx context.Context, near *net.TCPConn) {
	defer near.Close()
	dialing, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	far, err := p.wire.Dial(dialing, p.target)
	if err != nil {
		p.log.Debug("Failed to connect to gateway", zap.Error(err))
		// A reset tells the client at once that this endpoint is no good.
		_ = near.SetLinger(0)
		return
	}
	defer far.Close()
	// A machine that is cut off or dead must not keep a client waiting for long.
	_ = far.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3})
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pipe(far, near) })
	both.Go(func() { pipe(near, far) })
	both.Wait()
}

// pipe copies one direction and hands on its end: a finished stream as such, a broken one to both
// sides.
func pipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}
