package datapath_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/internal/netlab"
)

const (
	service6 = "[fd00:10:96::1]:80"
	one6     = "[fd00:10:244::1]:8080"
	two6     = "[fd00:10:244::2]:8080"
)

// newHost6 is a host of a dual-stack cluster, with two endpoints that serve TCP and UDP.
func newHost6(t *testing.T) *host { return newHost6With(t, "") }

func newHost6With(t *testing.T, listing datapath.Listing) *host {
	h := &host{Namespace: netlab.New(t).Namespace(), t: t}
	h.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, ip := range []string{"fd00:10:244::1", "fd00:10:244::2"} {
			addr := &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(128, 128)}
			if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: addr, Flags: unix.IFA_F_NODAD}); err != nil {
				return err
			}
		}
		return nil
	})
	h.cfg = datapath.Config{PinPath: filepath.Join(netlab.BPFFS(t), "xebec"), CgroupPath: netlab.JoinCgroup(t), IPv6: true, Listing: listing}
	h.load()
	t.Cleanup(func() {
		h.dp.Close()
		if err := datapath.Remove(h.cfg.PinPath); err != nil {
			t.Errorf("removing the datapath: %v", err)
		}
	})
	for addr, name := range map[string]string{one6: "one", two6: "two"} {
		serveTCP(t, h.Namespace, addr, name)
		var conn net.PacketConn
		h.do(func() (err error) { conn, err = net.ListenPacket("udp6", addr); return err })
		t.Cleanup(func() { conn.Close() })
		go func() {
			buf := make([]byte, 64)
			for {
				_, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				conn.WriteTo([]byte(name), from)
			}
		}()
	}
	return h
}

func (h *host) answers6(network, addr string, n int) map[string]int {
	h.t.Helper()
	got := map[string]int{}
	for range n {
		name, err := ask(h.Namespace, network, addr)
		if err != nil {
			h.t.Fatalf("%s %s: %v", network, addr, err)
		}
		got[name]++
	}
	return got
}

func TestIPv6(t *testing.T) {
	h := newHost6(t)
	tcp, udp := service(service6, datapath.TCP, one6, two6), service(service6, datapath.UDP, one6, two6)
	empty := service("[fd00:10:96::2]:80", datapath.TCP)
	sticky := service("[fd00:10:96::3]:80", datapath.TCP, one6, two6)
	sticky.Affinity = time.Hour
	four := service("10.96.0.1:80", datapath.TCP, "127.0.0.9:8080")
	serveTCP(t, h.Namespace, "127.0.0.9:8080", "four")
	h.replace(tcp, udp, empty, sticky, four)
	for _, network := range []string{"tcp6", "udp6"} {
		if got := h.answers6(network, service6, 40); len(got) != 2 {
			t.Errorf("%s: 40 connections reached %v", network, got)
		}
	}
	if got := h.answers6("tcp6", sticky.Frontend.String(), 40); len(got) != 1 {
		t.Errorf("a client that is to stay reached %v", got)
	}
	if _, err := ask(h.Namespace, "tcp6", empty.Frontend.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a service without endpoints: %v", err)
	}
	// Other services' addresses, ports and protocols are not touched.
	if got := h.answers6("tcp6", two6, 10); got["two"] != 10 {
		t.Errorf("an endpoint by its own address: %v", got)
	}
	if got := h.answers6("tcp4", "10.96.0.1:80", 5); got["four"] != 5 {
		t.Errorf("an IPv4 service: %v", got)
	}

	// The application sees the service.
	c, err := dial(h.Namespace, "udp6", service6)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := askOn(c); err != nil {
		t.Error(err)
	}
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var peer unix.Sockaddr
	raw.Control(func(fd uintptr) { peer, err = unix.Getpeername(int(fd)) })
	if six, ok := peer.(*unix.SockaddrInet6); err != nil || !ok || netip.AddrPortFrom(netip.AddrFrom16(six.Addr), uint16(six.Port)).String() != service6 {
		t.Errorf("a connected socket's peer is %+v, %v", peer, err)
	}

	// What is in the maps is what was wanted; changes of either family are written alone.
	dump := func() map[string]int {
		t.Helper()
		list, err := h.dp.Dump()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]int{}
		for _, s := range list {
			out[fmt.Sprint(s.Frontend.AddrPort, " ", s.Frontend.Protocol)] = len(s.Backends)
		}
		return out
	}
	if got := fmt.Sprint(dump()); got != "map[10.96.0.1:80 TCP:1 [fd00:10:96::1]:80 TCP:2 [fd00:10:96::1]:80 UDP:2 [fd00:10:96::2]:80 TCP:0 [fd00:10:96::3]:80 TCP:2]" {
		t.Errorf("the maps hold %s", got)
	}
	less := tcp
	less.Backends = tcp.Backends[1:]
	if err := h.dp.Update(datapath.Change{Put: []datapath.Service{less}, Delete: []datapath.Frontend{sticky.Frontend, four.Frontend}}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(dump()); got != "map[[fd00:10:96::1]:80 TCP:1 [fd00:10:96::1]:80 UDP:2 [fd00:10:96::2]:80 TCP:0]" {
		t.Errorf("after a change the maps hold %s", got)
	}
	if got := h.answers6("tcp6", service6, 20); got["two"] != 20 {
		t.Errorf("after an endpoint went: %v", got)
	}

	// The programs serve while no agent runs, and the next one finds what they serve.
	h.dp.Close()
	if got := h.answers6("tcp6", service6, 5); got["two"] != 5 {
		t.Errorf("without an agent: %v", got)
	}
	h.load()
	h.replace(tcp, udp)
	if got := fmt.Sprint(dump()); got != "map[[fd00:10:96::1]:80 TCP:2 [fd00:10:96::1]:80 UDP:2]" {
		t.Errorf("the next agent's maps hold %s", got)
	}

	// Changes of the maps by others are repaired.
	m, err := ebpf.LoadPinnedMap(h.pinned("backends6"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var key bpf.SocketLB6BackendKey
	if err := m.NextKey(nil, &key); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(key); err != nil {
		t.Fatal(err)
	}
	if err := h.dp.Verify(); err != nil {
		t.Fatal(err)
	}
	h.replace(tcp, udp)
	for _, network := range []string{"tcp6", "udp6"} {
		if got := h.answers6(network, service6, 40); len(got) != 2 {
			t.Errorf("after the repair, %s reaches %v", network, got)
		}
	}
}

func (h *host) pinned(name string) string {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.cfg.PinPath, "maps-*", name))
	if err != nil || len(found) != 1 {
		h.t.Fatalf("maps named %s: %v, %v", name, found, err)
	}
	return found[0]
}

// An unconnected socket hears from the service, keeps to an endpoint and leaves it when it goes.
func TestIPv6Datagrams(t *testing.T) {
	h := newHost6(t)
	udp := service(service6, datapath.UDP, one6, two6)
	h.replace(udp)
	var c net.PacketConn
	h.do(func() (err error) { c, err = net.ListenPacket("udp6", "[fd00:10:244::1]:0"); return err })
	defer c.Close()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(service6))
	send := func() string {
		t.Helper()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.WriteTo([]byte("who"), to); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if from.String() != service6 {
			t.Errorf("the answer came from %v", from)
		}
		return string(buf[:n])
	}
	first := send()
	for range 20 {
		if name := send(); name != first {
			t.Errorf("%s answered, and %s before", name, first)
		}
	}
	other := map[string]string{"one": two6, "two": one6}[first]
	h.replace(service(service6, datapath.UDP, other))
	if name := send(); name == first {
		t.Errorf("%s answers, which is gone", name)
	}
}

// Endpoint sets are exchanged under connections that are being made: none fails, and none goes to
// another service's.
func TestIPv6SwapUnderLoad(t *testing.T) {
	h := newHost6(t)
	both := service(service6, datapath.TCP, one6, two6)
	only := service("[fd00:10:96::2]:80", datapath.TCP, two6)
	h.replace(both, only)
	var stop atomic.Bool
	var calls atomic.Int64
	var wg sync.WaitGroup
	for _, frontend := range []string{service6, only.Frontend.String()} {
		wg.Go(func() {
			for !stop.Load() {
				name, err := ask(h.Namespace, "tcp6", frontend)
				if err != nil || frontend != service6 && name != "two" {
					t.Errorf("%s: %q, %v", frontend, name, err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for i := 0; calls.Load() < 500 && !t.Failed(); i++ {
		s := both
		if i%2 == 0 {
			s.Backends = slices.Clone(both.Backends[:1])
		}
		o := only
		o.Affinity = time.Duration(i%3) * time.Hour
		if err := h.dp.Update(datapath.Change{Put: []datapath.Service{s, o}}); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
}

// A node without IPv6 passes IPv6 frontends over.
func TestIPv6IsOptional(t *testing.T) {
	h := newHost(t)
	h.replace(service(service6, datapath.TCP, one6), service("10.96.0.1:80", datapath.TCP, "127.0.0.1:1"))
	list, err := h.dp.Dump()
	if err != nil || len(list) != 1 {
		t.Errorf("the maps hold %v, %v", list, err)
	}
}

// A socket that is connected by IPv6 is closed when its endpoint goes; others stay. What went to a
// service is counted.
func TestIPv6Sever(t *testing.T) {
	eachListing(t, func(t *testing.T, listing datapath.Listing) { testIPv6Sever(t, newHost6With(t, listing)) })
}

func testIPv6Sever(t *testing.T, h *host) {
	goes, stays := service(service6, datapath.UDP, one6), service("[fd00:10:96::2]:80", datapath.UDP, one6)
	h.replace(goes, stays)
	sockets := make(map[string]int)
	h.do(func() error {
		for name, to := range map[string]string{"stale": service6, "of another service": stays.Frontend.String(), "direct": one6} {
			fd, err := connectUDP(unix.AF_INET6, netip.MustParseAddrPort(to))
			if err != nil {
				return err
			}
			t.Cleanup(func() { unix.Close(fd) })
			sockets[name] = fd
		}
		return nil
	})
	// Entering the namespace takes a process in it.
	hold := exec.Command("sleep", "60")
	h.do(hold.Start)
	t.Cleanup(func() { hold.Process.Kill(); hold.Wait() })
	traffic, err := h.dp.Traffic()
	if err != nil || len(traffic) != 2 || traffic[0].Frontend != goes.Frontend || traffic[0].Backend.String() != one6 || traffic[0].Connections != 1 {
		t.Errorf("counted: %+v, %v", traffic, err)
	}
	known, err := h.dp.Sockets()
	if err != nil || len(known) != 2 || known[0].Backend.String() != one6 || !known[0].Local.Addr().Is6() {
		t.Errorf("sockets that are known: %+v, %v", known, err)
	}
	for _, want := range []int{0, 1, 0} {
		if n, err := h.dp.Sever(); n != want || err != nil {
			t.Errorf("severed %d, %v; want %d", n, err, want)
		}
		h.replace(service(service6, datapath.UDP, two6), stays)
	}
	for name, fd := range sockets {
		_, writeErr := unix.Write(fd, []byte("who"))
		_, readErr := unix.Read(fd, make([]byte, 64))
		want := [2]error{}
		if name == "stale" {
			want = [2]error{unix.EDESTADDRREQ, unix.ECONNABORTED}
		}
		if writeErr != want[0] || readErr != want[1] {
			t.Errorf("the socket that is %s: %v and %v, want %v", name, writeErr, readErr, want)
		}
	}
}
