package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/xebec-project/xebec/internal/netlab"
)

// silenceSlack is how much later than its limit a connection may fail on a busy machine. Without a
// limit it takes gRPC's keepalive (10 s and more, set to an hour here) or the kernel's own
// patience, which is 15 minutes for data and 10 for Go's keepalive probes of idle connections.
const silenceSlack = time.Minute

// TestSilentPeer cuts off a peer without its kernel ending the connection.
func TestSilentPeer(t *testing.T) {
	for _, name := range []string{"idle", "busy", "full"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCable(t)
			conn, accepted := w.connect(t)
			if name == "full" {
				fillWindow(t, conn)
			}
			w.cut(t)
			if name == "busy" {
				if _, err := conn.Write([]byte("unacknowledged")); err != nil {
					t.Fatal(err)
				}
			}
			if err := conn.SetReadDeadline(time.Now().Add(silenceSlack)); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, err := conn.Read(make([]byte, 1))
			if !errors.Is(err, unix.ETIMEDOUT) {
				t.Fatalf("after %s: error %v, want %v: the connection outlives the peer", time.Since(began), err, unix.ETIMEDOUT)
			}
			_ = accepted.Close()
		})
	}
}

// fillWindow writes until the peer, which does not read, takes no more, and returns how many bytes
// it took.
func fillWindow(t *testing.T, conn net.Conn) int {
	t.Helper()
	written := 0
	for {
		if err := conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Write(make([]byte, 64<<10))
		written += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return written
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestBusyPeer has a peer that reads nothing for several times the limit, as an overloaded server
// does: its kernel answers, and the connection lives on.
func TestBusyPeer(t *testing.T) {
	t.Parallel()
	w := newCable(t)
	conn, accepted := w.connect(t)
	written := fillWindow(t, conn)
	if err := conn.SetReadDeadline(time.Now().Add(4 * DefaultSilence)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection to a peer that does not read ended: %v", err)
	}
	if err := accepted.SetReadDeadline(time.Now().Add(silenceSlack)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyN(io.Discard, accepted, int64(written)); err != nil {
		t.Errorf("read %d of %d bytes: %v", n, written, err)
	}
}

// TestSilentPeerOfGRPC checks that gRPC does not replace the limit by its keepalive's.
func TestSilentPeerOfGRPC(t *testing.T) {
	t.Parallel()
	w := newCable(t)
	server := grpc.NewServer()
	go func() { _ = server.Serve(w.listener) }()
	t.Cleanup(server.Stop)
	dial := ContextDialer(DefaultSilence)
	conn, err := grpc.NewClient("passthrough:///"+w.listener.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Hour, Timeout: time.Hour, PermitWithoutStream: true}),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (conn net.Conn, err error) {
			err = w.inClient(func() error {
				conn, err = dial(ctx, addr)
				return err
			})
			return conn, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), silenceSlack)
	defer cancel()
	conn.Connect()
	awaitState(ctx, t, conn, connectivity.Ready, true)
	w.cut(t)
	awaitState(ctx, t, conn, connectivity.Ready, false)
}

func awaitState(ctx context.Context, t *testing.T, conn *grpc.ClientConn, state connectivity.State, want bool) {
	t.Helper()
	for {
		now := conn.GetState()
		if (now == state) == want {
			return
		}
		if !conn.WaitForStateChange(ctx, now) {
			t.Fatalf("the connection is still %s", now)
		}
	}
}

// cable is a client and a server on a cable of their own, and a listener of the server.
type cable struct {
	client   *netlab.Namespace
	listener net.Listener
	link     *netlink.Handle // of the server's namespace
	address  *netlink.Addr
}

func newCable(t *testing.T) *cable {
	t.Helper()
	lab := netlab.New(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	server := lab.Host(netip.MustParsePrefix("192.0.2.2/24"))
	w := &cable{client: lab.Host(netip.MustParsePrefix("192.0.2.1/24"))}
	var err error
	w.link, err = server.Handle()
	must(err)
	t.Cleanup(w.link.Close)
	w.address, err = netlink.ParseAddr("192.0.2.2/24")
	must(err)
	own, err := w.link.LinkByName("eth0")
	must(err)
	h, err := w.client.Handle()
	must(err)
	defer h.Close()
	link, err := h.LinkByName("eth0")
	must(err)
	// Resolution must not be what notices that the peer is gone.
	must(h.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(192, 0, 2, 2), HardwareAddr: own.Attrs().HardwareAddr,
	}))
	must(server.Do(func() (err error) {
		w.listener, err = net.Listen("tcp", "192.0.2.2:0")
		return err
	}))
	t.Cleanup(func() { _ = w.listener.Close() })
	return w
}

func (w *cable) inClient(f func() error) error { return w.client.Do(f) }

// connect connects by ContextDialer and exchanges a byte, so that nothing is unacknowledged.
func (w *cable) connect(t *testing.T) (conn, accepted net.Conn) {
	t.Helper()
	err := w.inClient(func() (err error) {
		conn, err = ContextDialer(DefaultSilence)(t.Context(), w.listener.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if accepted, err = w.listener.Accept(); err != nil {
		t.Fatal(err)
	}
	if _, err := accepted.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return conn, accepted
}

// cut takes the server's address away: its kernel drops what comes for it, without an answer.
func (w *cable) cut(t *testing.T) {
	t.Helper()
	link, err := w.link.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.link.AddrDel(link, w.address); err != nil {
		t.Fatal(err)
	}
}
