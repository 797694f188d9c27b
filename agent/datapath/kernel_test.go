package datapath_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/netlab"
)

// One namespace whose loopback carries clients and endpoints alike.
type host struct {
	*netlab.Namespace
	t   testing.TB
	cfg datapath.Config
	dp  *datapath.Datapath
}

func newHost(t testing.TB) *host { return newHostWith(t, datapath.Config{}) }

// newHostWith makes a host whose datapath is configured as given, but for its places.
func newHostWith(t testing.TB, cfg datapath.Config) *host {
	lab := netlab.New(t)
	h := &host{Namespace: lab.Namespace(), t: t, cfg: cfg}
	h.cfg.PinPath, h.cfg.CgroupPath = filepath.Join(netlab.BPFFS(t), "xebec"), netlab.JoinCgroup(t)
	h.load()
	t.Cleanup(func() {
		h.dp.Close()
		if err := datapath.Remove(h.cfg.PinPath); err != nil {
			t.Errorf("removing the datapath: %v", err)
		}
	})
	return h
}

func (h *host) load() {
	h.t.Helper()
	dp, err := datapath.Load(h.cfg)
	if err != nil {
		h.t.Fatalf("loading the datapath: %v", err)
	}
	h.dp = dp
}

func (h *host) replace(services ...datapath.Service) {
	h.t.Helper()
	if err := h.dp.Replace(services); err != nil {
		h.t.Fatal(err)
	}
}

// do runs f on the host's own thread and fails the test on an error.
func (h *host) do(f func() error) {
	h.t.Helper()
	if err := h.Do(f); err != nil {
		h.t.Fatal(err)
	}
}

func service(frontend string, protocol datapath.Protocol, backends ...string) datapath.Service {
	s := datapath.Service{
		Name:     "test/" + frontend,
		Frontend: datapath.Frontend{AddrPort: netip.MustParseAddrPort(frontend), Protocol: protocol},
	}
	for _, b := range backends {
		s.Backends = append(s.Backends, netip.MustParseAddrPort(b))
	}
	return s
}

// serveTCP answers each line with the server's name.
func serveTCP(t testing.TB, ns *netlab.Namespace, addr, name string) {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			serving.Go(func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					fmt.Fprintln(c, name)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
}

// serveUDP answers each datagram with the server's name.
func serveUDP(t testing.TB, ns *netlab.Namespace, addr, name string) {
	t.Helper()
	var conn net.PacketConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 64)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := conn.WriteTo([]byte(name), from); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Logf("answering %v: %v", from, err)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
}

// patience is for requests that must be answered, on a machine that has much else to do as well.
// What is not to be is asked briefly.
const patience, brief = 20 * time.Second, 3 * time.Second

// dial connects from inside the namespace.
func dial(ns *netlab.Namespace, network, addr string) (net.Conn, error) {
	return dialFor(ns, network, addr, patience)
}

func dialFor(ns *netlab.Namespace, network, addr string, limit time.Duration) (net.Conn, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		d := net.Dialer{Timeout: limit}
		c, err = d.DialContext(context.Background(), network, addr)
		return err
	})
	return c, err
}

// ask connects, sends a line and returns the name of who answers.
func ask(ns *netlab.Namespace, network, addr string) (string, error) {
	return askFor(ns, network, addr, patience)
}

// askBriefly is ask for a destination that probably does not respond.
func askBriefly(ns *netlab.Namespace, network, addr string) (string, error) {
	return askFor(ns, network, addr, brief)
}

func askFor(ns *netlab.Namespace, network, addr string, limit time.Duration) (string, error) {
	c, err := dialFor(ns, network, addr, limit)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return askOnFor(c, limit)
}

func askOn(c net.Conn) (string, error) { return askOnFor(c, patience) }

func askOnFor(c net.Conn, limit time.Duration) (string, error) {
	c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, "who\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if n > 0 && buf[n-1] == '\n' {
		n--
	}
	return string(buf[:n]), err
}

// peerOf asks the kernel who the other end is: net.Conn remembers by itself.
func peerOf(t *testing.T, c net.Conn) string {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var peer unix.Sockaddr
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.Getpeername(int(fd)) }); err != nil || peerErr != nil {
		t.Fatal(err, peerErr)
	}
	v4 := peer.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), uint16(v4.Port)).String()
}

func (h *host) mustAsk(network, addr, want string) {
	h.t.Helper()
	got, err := ask(h.Namespace, network, addr)
	if err != nil || got != want {
		h.t.Fatalf("asking %s %s: %q, %v; want %q", network, addr, got, err, want)
	}
}

func TestTCP(t *testing.T) {
	h := newHost(t)
	serveTCP(t, h.Namespace, "127.0.0.2:8080", "a")
	h.replace(service("10.96.0.1:80", datapath.TCP, "127.0.0.2:8080"))

	h.mustAsk("tcp4", "10.96.0.1:80", "a")

	// Go made an AF_INET socket for that; most other runtimes make AF_INET6.
	for _, protocol := range []int{unix.IPPROTO_TCP, unix.IPPROTO_MPTCP} {
		h.do(func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, protocol)
			if err != nil {
				return fmt.Errorf("socket: %w", err)
			}
			defer unix.Close(fd)
			vip := &unix.SockaddrInet6{Port: 80, Addr: netip.MustParseAddr("::ffff:10.96.0.1").As16()}
			if err := unix.Connect(fd, vip); err != nil {
				return fmt.Errorf("connect of protocol %d: %w", protocol, err)
			}
			_, err = unix.Getpeername(fd)
			return err
		})
	}
}

func TestMPTCP(t *testing.T) {
	h := newHost(t)
	serveTCP(t, h.Namespace, "127.0.0.2:8080", "a")
	h.replace(service("10.96.0.1:80", datapath.TCP, "127.0.0.2:8080"))
	h.do(func() error {
		var d net.Dialer
		d.SetMultipathTCP(true)
		c, err := d.Dial("tcp4", "10.96.0.1:80")
		if err != nil {
			return err
		}
		defer c.Close()
		if got, err := askOn(c); err != nil || got != "a" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
}

func TestUDP(t *testing.T) {
	h := newHost(t)
	serveUDP(t, h.Namespace, "127.0.0.2:5353", "a")
	serveUDP(t, h.Namespace, "127.0.0.3:5353", "b")
	h.replace(
		service("10.96.0.1:53", datapath.UDP, "127.0.0.2:5353"),
		service("10.96.0.2:53", datapath.UDP, "127.0.0.3:5353"),
	)

	t.Run("connected", func(t *testing.T) {
		c, err := dial(h.Namespace, "udp4", "10.96.0.1:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := peerOf(t, c); got != "10.96.0.1:53" {
			t.Errorf("getpeername is %s, want the service's address", got)
		}
		if got, err := askOn(c); err != nil || got != "a" {
			t.Errorf("%q, %v", got, err)
		}
	})

	t.Run("connected AF_INET6", func(t *testing.T) {
		h.do(func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())}); err != nil {
				return err
			}
			vip := &unix.SockaddrInet6{Port: 53, Addr: netip.MustParseAddr("::ffff:10.96.0.1").As16()}
			if err := unix.Connect(fd, vip); err != nil {
				return err
			}
			if _, err := unix.Write(fd, []byte("who")); err != nil {
				return err
			}
			buf := make([]byte, 64)
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return err
			}
			peer, err := unix.Getpeername(fd)
			if err != nil {
				return err
			}
			for what, addr := range map[string]unix.Sockaddr{"the reply's source": from, "getpeername": peer} {
				if a := addr.(*unix.SockaddrInet6); a.Addr != vip.Addr || a.Port != 53 {
					return fmt.Errorf("%s is %v:%d", what, netip.AddrFrom16(a.Addr), a.Port)
				}
			}
			if string(buf[:n]) != "a" {
				return fmt.Errorf("%q answered", buf[:n])
			}
			return nil
		})
	})

	// Replies must come from the address that was asked, also when one socket
	// asks two services.
	for _, network := range []string{"udp4", "udp"} {
		t.Run("unconnected "+network, func(t *testing.T) {
			var c net.PacketConn
			h.do(func() (err error) {
				c, err = net.ListenPacket(network, ":0") // "udp" makes an AF_INET6 socket
				return err
			})
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			for range 3 {
				for vip, name := range map[string]string{"10.96.0.1:53": "a", "10.96.0.2:53": "b"} {
					if _, err := c.WriteTo([]byte("who"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(vip))); err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, 64)
					n, from, err := c.ReadFrom(buf)
					if err != nil {
						t.Fatal(err)
					}
					if string(buf[:n]) != name || from.String() != vip {
						t.Errorf("%q from %v, want %q from %s", buf[:n], from, name, vip)
					}
				}
			}
		})
	}
}

// Datagrams of one socket keep to one endpoint until it goes, and those of many
// sockets spread.
func TestUDPSticksToAnEndpoint(t *testing.T) {
	h := newHost(t)
	backends := []string{"127.0.0.2:5353", "127.0.0.3:5353", "127.0.0.4:5353"}
	for _, b := range backends {
		serveUDP(t, h.Namespace, b, b)
	}
	h.replace(service("10.96.0.1:53", datapath.UDP, backends...))
	vip := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.96.0.1:53"))
	query := func(c net.PacketConn) string {
		t.Helper()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.WriteTo([]byte("who"), vip); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	sockets := make(map[net.PacketConn]string)
	spread := make(map[string]int)
	for range 60 {
		var c net.PacketConn
		h.do(func() (err error) { c, err = net.ListenPacket("udp4", ":0"); return err })
		defer c.Close()
		sockets[c] = query(c)
		spread[sockets[c]]++
	}
	if len(spread) != len(backends) {
		t.Errorf("60 sockets went to %v only", spread)
	}
	gone := backends[2]
	h.replace(service("10.96.0.1:53", datapath.UDP, backends[:2]...))
	for c, first := range sockets {
		now := query(c)
		if first != gone && now != first {
			t.Errorf("a flow moved from %s to %s, though only %s went", first, now, gone)
		}
		if now == gone {
			t.Errorf("a datagram went to %s, which is gone", gone)
		}
	}
}

func TestNoEndpoint(t *testing.T) {
	h := newHost(t)
	h.replace(service("10.96.0.1:80", datapath.TCP), service("10.96.0.1:53", datapath.UDP))
	for _, network := range []string{"tcp4", "udp4"} {
		port := map[string]string{"tcp4": "80", "udp4": "53"}[network]
		if _, err := dial(h.Namespace, network, "10.96.0.1:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want connection refused", network, err)
		}
	}
	h.do(func() error {
		c, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.96.0.1:53")))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("sendto: %v, want connection refused", err)
		}
		return nil
	})
}

func TestSessionAffinity(t *testing.T) {
	h := newHost(t)
	backends := []string{"127.0.0.2:80", "127.0.0.3:80", "127.0.0.4:80"}
	for _, b := range backends {
		serveTCP(t, h.Namespace, b, b)
	}
	s := service("10.96.0.1:80", datapath.TCP, backends...)
	s.Affinity = time.Hour
	h.replace(s)
	first, err := ask(h.Namespace, "tcp4", "10.96.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		h.mustAsk("tcp4", "10.96.0.1:80", first)
	}
}

// A client that was away for longer than the timeout may get another endpoint; one that was not
// keeps it.
func TestSessionAffinityEnds(t *testing.T) {
	h := newHost(t)
	backends := []string{"127.0.0.2:80", "127.0.0.3:80", "127.0.0.4:80"}
	for _, b := range backends {
		serveTCP(t, h.Namespace, b, b)
	}
	s := service("10.96.0.1:80", datapath.TCP, backends...)
	s.Affinity = 100 * time.Second
	h.replace(s)
	first, err := ask(h.Namespace, "tcp4", "10.96.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	// A choice may fall on the same endpoint again, but not thirty times.
	changed := false
	for range 30 {
		h.ageAffinities(50 * time.Second)
		h.mustAsk("tcp4", "10.96.0.1:80", first)
		h.ageAffinities(100 * time.Second)
		next, err := ask(h.Namespace, "tcp4", "10.96.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		changed = changed || next != first
		first = next
	}
	if !changed {
		t.Errorf("%s is still chosen", first)
	}
}

// ageAffinities makes every client's last connection so much longer ago.
func (h *host) ageAffinities(by time.Duration) {
	h.t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(h.cfg.PinPath, "maps-v2", "affinities"), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer m.Close()
	var k bpf.SocketLBAffinityKey
	var v bpf.SocketLBAffinity
	found := false
	for it := m.Iterate(); it.Next(&k, &v); found = true {
		v.LastUsed -= uint64(by)
		if err := m.Put(k, v); err != nil {
			h.t.Fatal(err)
		}
	}
	if !found {
		h.t.Fatal("no client is remembered")
	}
}

// Endpoint sets are swapped back and forth while clients connect: each
// connection gets an answer, from the one set or the other.
func TestSwapUnderLoad(t *testing.T) {
	h := newHost(t)
	var sets [2][]string
	for i := range 2 {
		for j := range 3 {
			addr := fmt.Sprintf("127.0.%d.%d:80", i+1, j+1)
			serveTCP(t, h.Namespace, addr, addr)
			sets[i] = append(sets[i], addr)
		}
	}
	h.replace(service("10.96.0.1:80", datapath.TCP, sets[0]...))

	ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	var asked, swaps atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if got, err := ask(h.Namespace, "tcp4", "10.96.0.1:80"); err != nil || got == "" {
					t.Errorf("%q, %v", got, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for i := 1; ctx.Err() == nil; i++ {
		h.replace(service("10.96.0.1:80", datapath.TCP, sets[i%2]...))
		swaps.Add(1)
	}
	clients.Wait()
	t.Logf("%d connections during %d swaps", asked.Load(), swaps.Load())
	if asked.Load() == 0 {
		t.Error("no connection was made")
	}
}

func TestMetrics(t *testing.T) {
	h := newHost(t)
	registry := prometheus.NewPedanticRegistry()
	h.cfg.Metrics = datapath.NewMetrics(registry)
	h.dp.Close()
	h.load()
	expect := func(what string, services, backends int) {
		t.Helper()
		for name, want := range map[string]map[string]float64{
			metrics.DatapathServices:    {"": float64(services)},
			metrics.DatapathBackends:    {"": float64(backends)},
			metrics.DatapathMapPressure: {"services": float64(services) / (1 << 16), "backends": float64(backends) / (1 << 19)},
		} {
			if got := metricstest.Values(t, registry, name); !maps.Equal(got, want) {
				t.Errorf("%s: %s is %v, want %v", what, name, got, want)
			}
		}
	}
	a, b := service("10.96.0.1:80", datapath.TCP, "127.0.0.2:80", "127.0.0.3:80"), service("10.96.0.2:80", datapath.TCP, "127.0.0.2:80")
	h.replace(a, b)
	expect("two services", 2, 3)
	a.Backends = a.Backends[1:]
	if err := h.dp.Update(datapath.Change{Put: []datapath.Service{a}}); err != nil {
		t.Fatal(err)
	}
	expect("an endpoint less", 2, 2)
	h.dp.Close()
	h.load()
	h.replace(a, b)
	expect("after a restart", 2, 2)
	if err := h.dp.Update(datapath.Change{Delete: []datapath.Frontend{a.Frontend, b.Frontend}}); err != nil {
		t.Fatal(err)
	}
	expect("none", 0, 0)
}

// An agent dies and the next one loads the pins: nothing that works stops, and
// nothing is written that was right.
func TestRestart(t *testing.T) {
	h := newHost(t)
	serveTCP(t, h.Namespace, "127.0.0.2:80", "a")
	serveUDP(t, h.Namespace, "127.0.0.2:53", "a")
	services := []datapath.Service{
		service("10.96.0.1:80", datapath.TCP, "127.0.0.2:80"),
		service("10.96.0.1:53", datapath.UDP, "127.0.0.2:53"),
	}
	h.replace(services...)
	tcp, err := dial(h.Namespace, "tcp4", "10.96.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := dial(h.Namespace, "udp4", "10.96.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()

	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	clients.Go(func() {
		for ctx.Err() == nil {
			if _, err := ask(h.Namespace, "tcp4", "10.96.0.1:80"); err != nil {
				t.Errorf("while restarting: %v", err)
				return
			}
		}
	})
	ids := setIDs(t, h.cfg)
	for range 5 {
		h.dp.Close()
		h.mustAsk("tcp4", "10.96.0.1:80", "a") // there is no listener
		h.load()
		h.mustAsk("tcp4", "10.96.0.1:80", "a") // loaded, not yet synced
		h.replace(services...)
	}
	stop()
	clients.Wait()
	if now := setIDs(t, h.cfg); fmt.Sprint(now) != fmt.Sprint(ids) {
		t.Errorf("endpoint sets %v were rewritten as %v", ids, now)
	}
	for _, c := range []net.Conn{tcp, udp} {
		if got, err := askOn(c); err != nil || got != "a" {
			t.Errorf("old %s connection: %q, %v", c.RemoteAddr().Network(), got, err)
		}
	}
}

func setIDs(t *testing.T, cfg datapath.Config) map[string]bool {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(cfg.PinPath, "maps-v2", "backends"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ids := make(map[string]bool)
	var k, v []byte
	for it := m.Iterate(); it.Next(&k, &v); {
		ids[fmt.Sprintf("%x", k)] = true
	}
	return ids
}

// Changes of the maps and of the cgroup by others are repaired.
func TestRepairs(t *testing.T) {
	h := newHost(t)
	serveTCP(t, h.Namespace, "127.0.0.2:80", "a")
	services := []datapath.Service{service("10.96.0.1:80", datapath.TCP, "127.0.0.2:80")}
	h.replace(services...)

	m, err := ebpf.LoadPinnedMap(filepath.Join(h.cfg.PinPath, "maps-v2", "backends"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var k, v []byte
	for it := m.Iterate(); it.Next(&k, &v); {
		if err := m.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask(h.Namespace, "tcp4", "10.96.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("with no backend in the map: %v, want connection refused", err)
	}
	if err := os.Remove(filepath.Join(h.cfg.PinPath, "links", "connect4")); err != nil {
		t.Fatal(err)
	}
	if err := h.dp.Verify(); err != nil {
		t.Fatal(err)
	}
	h.replace(services...)
	h.mustAsk("tcp4", "10.96.0.1:80", "a")
}

// A link whose cgroup was removed is replaced by one to the cgroup that has its
// path now.
func TestRecreatedCgroup(t *testing.T) {
	h := newHost(t)
	child := filepath.Join(h.cfg.CgroupPath, "host")
	cfg := datapath.Config{PinPath: filepath.Join(filepath.Dir(h.cfg.PinPath), "other"), CgroupPath: child}
	for round := range 2 {
		if err := os.Mkdir(child, 0o755); err != nil {
			t.Fatal(err)
		}
		dp, err := datapath.Load(cfg)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := dp.Replace([]datapath.Service{service("10.96.9.9:80", datapath.TCP)}); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		move := func(to string) {
			if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte("0"), 0); err != nil {
				t.Fatal(err)
			}
		}
		move(child)
		_, err = dial(h.Namespace, "tcp4", "10.96.9.9:80")
		move(h.cfg.CgroupPath)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("round %d: %v, want connection refused by the datapath", round, err)
		}
		dp.Close()
		if err := os.Remove(child); err != nil {
			t.Fatal(err)
		}
	}
	if err := datapath.Remove(cfg.PinPath); err != nil {
		t.Error(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	netlab.New(t)
	bpffs := netlab.BPFFS(t)
	cgroup := netlab.JoinCgroup(t)
	for name, cfg := range map[string]datapath.Config{
		"no such cgroup":           {PinPath: bpffs + "/x", CgroupPath: cgroup + "/none"},
		"not a cgroup":             {PinPath: bpffs + "/x", CgroupPath: t.TempDir()},
		"not on a bpf file system": {PinPath: t.TempDir(), CgroupPath: cgroup},
	} {
		if dp, err := datapath.Load(cfg); err == nil {
			dp.Close()
			t.Errorf("%s: loaded", name)
		}
	}
}

func TestRemove(t *testing.T) {
	h := newHost(t)
	h.replace(service("10.96.0.1:80", datapath.TCP))
	if _, err := dial(h.Namespace, "tcp4", "10.96.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("%v, want connection refused", err)
	}
	if err := datapath.Remove(h.cfg.PinPath); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.cfg.PinPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
	if _, err := dial(h.Namespace, "tcp4", "10.96.0.1:80"); errors.Is(err, syscall.ECONNREFUSED) || err == nil {
		t.Errorf("%v, want no route: the programs are still attached", err)
	}
}
