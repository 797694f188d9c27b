package listener

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
)

// headerTimeout is how long a load balancer may take to send its PROXY header.
const headerTimeout = 5 * time.Second

// handshakeTimeout is what gRPC gives a handshake, which a deadline for the header replaces.
const handshakeTimeout = 2 * time.Minute

// headerBytes is more than a PROXY header has, without extensions.
const headerBytes = 536

// errDenied ends a connection that the access list does not admit.
var errDenied = errors.New("the access list does not admit this source")

// errNotOpen ends a load balancer's check while the gateway starts or is about to stop.
var errNotOpen = errors.New("the gateway takes no new clients")

// errSilent ends a connection that a load balancer opened and sent nothing on.
var errSilent = errors.New("nothing came")

// Addr is the address of a connection's other end, as the access list sees it.
type Addr struct {
	netip.AddrPort
	// Listener is where the connection came in.
	Listener string
	// Master says that the source is admitted whatever the list says.
	Master bool
}

// Network implements net.Addr.
func (Addr) Network() string { return "tcp" }

// Listeners returns the private listener, which is the one given, and the public one when there is
// one.
func (s *Set) Listeners(private net.Listener) ([]net.Listener, error) {
	listeners := []net.Listener{&listener{private, s, Private}}
	if s.cfg.Public.Listen == "" {
		return listeners, nil
	}
	var listen net.ListenConfig
	listen.SetMultipathTCP(false)
	public, err := listen.Listen(context.Background(), "tcp", s.cfg.Public.Listen)
	if err != nil {
		return nil, fmt.Errorf("public listener: %w", err)
	}
	return append(listeners, &listener{public, s, Public}), nil
}

// listener hands out connections that know where they came in. It reads nothing of them, so that a
// slow client delays only its own connection.
type listener struct {
	net.Listener
	set  *Set
	name string
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, set: l.set, listener: l.name, remote: raw.RemoteAddr()}
	if from, err := netip.ParseAddrPort(c.remote.String()); err == nil {
		c.peer = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		c.source = c.peer.Addr()
	}
	return c, nil
}

// conn is a connection with the source that the access list judges.
type conn struct {
	net.Conn
	set      *Set
	listener string
	peer     netip.AddrPort // the other end of the connection itself
	source   netip.Addr     // that, or the address that a trusted proxy names
	remote   net.Addr
	// proxysOwn reports that a trusted proxy speaks for itself, as its health checks do: the
	// connection carries no other calls.
	proxysOwn bool
	buffered  *bufio.Reader // holds what came right after a PROXY header
	closing   sync.Once
}

// RemoteAddr is an Addr once the connection was admitted.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Read reads what the proxy's header left over first.
func (c *conn) Read(b []byte) (int, error) {
	if c.buffered != nil {
		if c.buffered.Buffered() > 0 {
			return c.buffered.Read(b)
		}
		c.buffered = nil
	}
	return c.Conn.Read(b)
}

// Close also forgets the connection.
func (c *conn) Close() error {
	c.closing.Do(func() {
		c.set.mu.Lock()
		_, admitted := c.set.open[c]
		delete(c.set.open, c)
		c.set.mu.Unlock()
		if admitted {
			c.set.openGauges.WithLabelValues(c.listener).Dec()
		}
	})
	return c.Conn.Close()
}

// Admit reads a trusted proxy's header, and returns an error when the connection's source is not
// admitted. It is called once per connection, before its handshake, and tells the log and the
// counters.
func (s *Set) Admit(connection net.Conn) error {
	c, ok := connection.(*conn)
	if !ok {
		return nil
	}
	source, proxies := c.peer, s.proxies[c.listener]
	if len(proxies) > 0 && proxies.Contains(c.peer.Addr()) {
		client, err := c.readHeader()
		if err != nil {
			s.tellBadHeader(c, err)
			return err
		}
		if client.IsValid() {
			source = client
		} else {
			c.proxysOwn = true
			if s.checkFails(c.peer.Addr()) {
				return errNotOpen
			}
		}
	}
	s.mu.Lock()
	c.source = source.Addr()
	master, admitted := s.isMaster(c.source), s.admits(c)
	if admitted {
		s.open[c] = struct{}{}
	}
	s.mu.Unlock()
	c.remote = Addr{AddrPort: source, Listener: c.listener, Master: master}
	if !admitted {
		s.deny(c.listener, c.source)
		return errDenied
	}
	s.openGauges.WithLabelValues(c.listener).Inc()
	s.decided.WithLabelValues(c.listener, resultAdmitted).Inc()
	return nil
}

// readHeader returns the client that a proxy's header names; none when the proxy speaks for itself.
func (c *conn) readHeader() (netip.AddrPort, error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return netip.AddrPort{}, err
	}
	// gRPC lifts it after the handshake.
	defer func() { _ = c.Conn.SetReadDeadline(time.Now().Add(handshakeTimeout)) }()
	c.buffered = bufio.NewReaderSize(c.Conn, headerBytes)
	if _, err := c.buffered.Peek(1); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", errSilent, err)
	}
	header, err := proxyproto.Read(c.buffered)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if header.Command.IsLocal() {
		return netip.AddrPort{}, nil
	}
	client, err := netip.ParseAddrPort(header.SourceAddr.String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("its PROXY header names no client: %w", err)
	}
	return netip.AddrPortFrom(client.Addr().Unmap().WithZone(""), client.Port()), nil
}

// tellBadHeader logs a trusted proxy's connection without a proper header. One that goes away
// without a byte is a check of the port, which comes every second.
func (s *Set) tellBadHeader(c *conn, err error) {
	if errors.Is(err, errSilent) {
		s.log.Debug("A load balancer checked the port", zap.Stringer(metrics.KeyPeer, c.peer))
		return
	}
	s.decided.WithLabelValues(c.listener, resultProxy).Inc()
	s.log.Warn("Refused a connection of a load balancer that did not begin with a PROXY header: it has to send one (send-proxy-v2 in HAProxy)",
		zap.String(metrics.KeyListener, c.listener), zap.Stringer(metrics.KeyPeer, c.peer), zap.Error(err))
}
