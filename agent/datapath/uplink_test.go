package datapath_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/netlab"
)

// wire is two nodes with pods, and a client that is no part of the cluster, on one L2 network. The
// nodes' programs see the packets of the wire only: no sockets are in their cgroups.
type wire struct {
	t      testing.TB
	lab    *netlab.Lab
	nodes  []*wiredNode
	client *netlab.Namespace
}

type wiredNode struct {
	*netlab.Namespace
	pods *podnet.Network
	cfg  datapath.Config
	dp   *datapath.Datapath
}

const (
	clientIP  = "192.0.2.100"
	clientIP6 = "2001:db8::100"
)

// dualStack gives the nodes, their pods and the client IPv6 addresses too.
func dualStack(c *datapath.Config) { c.IPv6 = true }

// addAddress gives a host's interface an address that no other host has.
func addAddress(t testing.TB, ns *netlab.Namespace, addr string) {
	t.Helper()
	err := ns.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(l, a)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func newWire(t testing.TB, change ...func(*datapath.Config)) *wire {
	return newWireOf(t, netlab.New(t), []string{"192.0.2.1", "192.0.2.2"}, podnet.OverlayNever, change...)
}

func newWireOf(t testing.TB, lab *netlab.Lab, nodes []string, overlay podnet.Overlay, change ...func(*datapath.Config)) *wire {
	w := &wire{t: t, lab: lab}
	cgroup := netlab.JoinCgroup(t)
	var routes []podnet.NodeRoute
	cluster6 := netip.MustParsePrefix("fd00:10:244::/48")
	cluster := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), cluster6}
	for i, text := range nodes {
		ip := netip.MustParseAddr(text)
		pods := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)
		n := &wiredNode{Namespace: w.lab.Host(netip.PrefixFrom(ip, 24)), cfg: datapath.Config{
			PinPath: filepath.Join(netlab.BPFFS(t), "xebec"), CgroupPath: filepath.Join(cgroup, fmt.Sprint("node-", i)), NodeIP: ip, PodCIDR: pods,
		}}
		if overlay != podnet.OverlayNever {
			n.cfg.OverlayLink, n.cfg.OverlayIP, n.cfg.OverlayPort = podnet.OverlayLink, podnet.OverlayAddress(pods), podnet.OverlayPort
			n.cfg.PodLinkPrefix = podnet.LinkPrefix
		}
		for _, f := range change {
			f(&n.cfg)
		}
		cidrs := podnet.Config{
			PodCIDR: pods, ClusterCIDR: cluster[0], ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), NodeIP: ip, Overlay: overlay, StateDir: t.TempDir(),
		}
		if n.cfg.IPv6 {
			cidrs.PodCIDR6, cidrs.ClusterCIDR6 = netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", i)), cluster6
			cidrs.NodeIP6 = netip.MustParseAddr(fmt.Sprint("2001:db8::", i+1))
			addAddress(t, n.Namespace, cidrs.NodeIP6.String()+"/64")
			n.cfg.NodeIP6, n.cfg.PodCIDR6 = cidrs.NodeIP6, cidrs.PodCIDR6
			if overlay != podnet.OverlayNever {
				n.cfg.OverlayIP6 = podnet.OverlayAddress(cidrs.PodCIDR6)
			}
			routes = append(routes, podnet.NodeRoute{PodCIDR: cidrs.PodCIDR6, NodeIP: ip, NodeIP6: cidrs.NodeIP6})
		}
		if err := os.Mkdir(n.cfg.CgroupPath, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(n.dp.Close(), n.Do(func() error { return datapath.Remove(n.cfg.PinPath) }), os.Remove(n.cfg.CgroupPath)); err != nil {
				t.Error(err)
			}
		})
		err := n.Do(func() (err error) {
			n.pods, err = podnet.New(cidrs)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.pods.Close() })
		w.load(n)
		routes = append(routes, podnet.NodeRoute{PodCIDR: pods, NodeIP: ip})
		w.nodes = append(w.nodes, n)
	}
	for _, n := range w.nodes {
		near := slices.Clone(cluster)
		var all []netip.Addr
		for _, other := range w.nodes {
			all = append(all, other.cfg.NodeIP)
			if !n.pods.Encapsulates(other.cfg.NodeIP) {
				near = append(near, netip.PrefixFrom(other.cfg.NodeIP, 32))
				if other.cfg.IPv6 {
					near = append(near, netip.PrefixFrom(other.cfg.NodeIP6, 128))
				}
			}
		}
		if err := errors.Join(n.pods.SetNodes(routes), n.dp.SetClusterNetworks(near), n.dp.SetOverlayNodes(all), n.Do(n.dp.AttachOverlay)); err != nil {
			t.Fatal(err)
		}
	}
	w.client = w.lab.Host(netip.MustParsePrefix(clientIP + "/24"))
	if w.nodes[0].cfg.IPv6 {
		addAddress(t, w.client, clientIP6+"/64")
	}
	return w
}

func (w *wire) load(n *wiredNode) {
	w.t.Helper()
	if err := n.Do(func() (err error) { n.dp, err = datapath.Load(n.cfg); return err }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) replace(node int, services ...datapath.Service) {
	w.t.Helper()
	n := w.nodes[node]
	if err := n.Do(func() error { return n.dp.Replace(services) }); err != nil {
		w.t.Fatal(err)
	}
}

// pod serves TCP at 8080 and UDP at 5353: to each question it answers with its
// own address and the one that it was asked from.
func (w *wire) pod(node int, name string) (*netlab.Namespace, string) {
	w.t.Helper()
	ns := w.lab.Namespace()
	result, err := w.nodes[node].pods.Setup(w.t.Context(), name, ns.Path())
	if err == nil {
		err = w.nodes[node].Do(func() error { return w.nodes[node].dp.GuardPod(result.Index) })
	}
	if err != nil {
		w.t.Fatal(err)
	}
	serveSeen(w.t, ns, result.IP.String())
	return ns, result.IP.String()
}

// pod6 is pod by IPv6.
func (w *wire) pod6(node int, name string) (*netlab.Namespace, string) {
	w.t.Helper()
	ns := w.lab.Namespace()
	result, err := w.nodes[node].pods.Setup(w.t.Context(), name, ns.Path())
	if err != nil {
		w.t.Fatal(err)
	}
	serveSeen(w.t, ns, result.IP6.String())
	return ns, result.IP6.String()
}

func serveSeen(t testing.TB, ns *netlab.Namespace, ip string) {
	t.Helper()
	var l net.Listener
	var conn net.PacketConn
	err := ns.Do(func() (err error) {
		if l, err = net.Listen("tcp", net.JoinHostPort(ip, "8080")); err != nil {
			return err
		}
		conn, err = net.ListenPacket("udp", net.JoinHostPort(ip, "5353"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); conn.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				for in := bufio.NewReader(c); ; {
					line, err := in.ReadString('\n')
					var n int
					if _, e := fmt.Sscanf(line, "echo %d\n", &n); e == nil {
						_, err = io.CopyN(c, in, int64(n))
					} else if err == nil {
						_, err = fmt.Fprintf(c, "%s saw %v\n", ip, c.RemoteAddr().(*net.TCPAddr).IP)
					}
					if err != nil {
						return
					}
				}
			})
		}
	})
	serving.Go(func() {
		buf := make([]byte, 64)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(fmt.Appendf(nil, "%s saw %v", ip, from.(*net.UDPAddr).IP), from)
		}
	})
}

func outside(frontend string, protocol datapath.Protocol, backends ...string) datapath.Service {
	s := service(frontend, protocol, backends...)
	s.Frontend.Outside = true
	return s
}

func (w *wire) expect(from *netlab.Namespace, network, addr, want string) {
	w.t.Helper()
	if got, err := ask(from, network, addr); err != nil || got != want {
		w.t.Errorf("asking %s %s: %q, %v; want %q", network, addr, got, err, want)
	}
}

// ends are the addresses that a test of one family is about.
type ends struct {
	tcp, udp                      string // networks
	self, other, external, client string
	pod                           func(*wire, int, string) (*netlab.Namespace, string)
}

var (
	ends4 = ends{"tcp4", "udp4", "192.0.2.1", "192.0.2.2", "198.51.100.7", clientIP, (*wire).pod}
	ends6 = ends{"tcp6", "udp6", "2001:db8::1", "2001:db8::2", "2001:db8:7::7", clientIP6, (*wire).pod6}
)

// hostPort is an address with a port.
func hostPort(ip string, port int) string { return net.JoinHostPort(ip, fmt.Sprint(port)) }

func testNodePorts(t *testing.T, e ends, change ...func(*datapath.Config)) {
	w := newWire(t, change...)
	_, here := e.pod(w, 0, "here")
	_, there := e.pod(w, 1, "there")
	serveSeen(t, w.nodes[0].Namespace, e.self)
	serveSeen(t, w.nodes[1].Namespace, e.other)
	w.route(w.client, netip.MustParseAddr(e.external), e.self)
	var services []datapath.Service
	for i, backend := range []string{here, there, e.self, e.other} {
		services = append(services,
			outside(hostPort(e.self, 30080+i), datapath.TCP, hostPort(backend, 8080)),
			outside(hostPort(e.self, 30080+i), datapath.UDP, hostPort(backend, 5353)),
			outside(hostPort(e.external, 80+i), datapath.TCP, hostPort(backend, 8080)),
			outside(hostPort(e.external, 80+i), datapath.UDP, hostPort(backend, 5353)))
	}
	services = append(services, outside(hostPort(e.self, 30090), datapath.TCP), service(hostPort(e.self, 30091), datapath.TCP, hostPort(here, 8080)))
	w.replace(0, services...)
	for i, want := range []string{
		here + " saw " + e.client, // the client's address is kept
		there + " saw " + e.self,  // answers have to come back this way
		e.self + " saw " + e.client,
		e.other + " saw " + e.self,
	} {
		for _, network := range []string{e.tcp, e.udp} {
			for range 3 {
				w.expect(w.client, network, hostPort(e.self, 30080+i), want)
				w.expect(w.client, network, hostPort(e.external, 80+i), want)
			}
		}
		if t.Failed() {
			return // each that fails takes seconds
		}
	}
	// A pod elsewhere, whose own node has a part in the way back.
	clientPod, clientPodIP := e.pod(w, 1, "client")
	w.expect(clientPod, e.tcp, hostPort(e.self, 30080), here+" saw "+clientPodIP)
	w.expect(clientPod, e.tcp, hostPort(e.self, 30081), there+" saw "+e.self)

	for port, why := range map[int]string{30090: "no endpoint", 30091: "for sockets on the node only"} {
		if _, err := ask(w.client, e.tcp, hostPort(e.self, port)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want connection refused", why, err)
		}
	}
	for i := range 4 {
		w.transfer(hostPort(e.self, 30080+i))
	}
}

// route leads an address to another one on the wire.
func (w *wire) route(from *netlab.Namespace, to netip.Addr, via string) {
	w.t.Helper()
	w.routeNetwork(from, netip.PrefixFrom(to, to.BitLen()), via)
}

func (w *wire) routeNetwork(from *netlab.Namespace, to netip.Prefix, via string) {
	w.t.Helper()
	err := from.Do(func() error {
		dst := &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
		return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// transfer has a stream of data echoed: segmentation and checksums are left to
// the devices there.
func (w *wire) transfer(addr string) {
	w.t.Helper()
	const size = 4 << 20
	data := make([]byte, size)
	for i := 0; i < size; i += 8 {
		binary.NativeEndian.PutUint64(data[i:], rand.Uint64())
	}
	c, err := dial(w.client, "tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, io.MultiReader(strings.NewReader(fmt.Sprintf("echo %d\n", size)), bytes.NewReader(data)))
		sent <- err
	}()
	sum := sha256.New()
	if _, err := io.CopyN(sum, c, size); err != nil {
		w.t.Errorf("%s: %v", addr, err)
	}
	if err := <-sent; err != nil || [32]byte(sum.Sum(nil)) != sha256.Sum256(data) {
		w.t.Errorf("%s: what came back is not what was sent (%v)", addr, err)
	}
}

func TestNodePorts(t *testing.T) { testNodePorts(t, ends4) }

// As on kernels before 6.6.
func classicTC(c *datapath.Config) { c.ClassicTC = true }

func TestNodePortsByClassicTC(t *testing.T) { testNodePorts(t, ends4, classicTC) }

// Connections from outside live through restarts of the agent and through what
// becomes of other endpoints; datagrams leave an endpoint that goes.
func TestNodePortFlows(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m := datapath.NewMetrics(registry)
	w := newWire(t, func(c *datapath.Config) { c.Metrics = m })
	_, one := w.pod(0, "one")
	_, two := w.pod(1, "two")
	tcp := outside("192.0.2.1:30080", datapath.TCP, one+":8080", two+":8080")
	udp := outside("192.0.2.1:30053", datapath.UDP, one+":5353", two+":5353")
	w.replace(0, tcp, udp)
	type flow struct {
		net.Conn
		answer string
	}
	flows := map[string][]flow{}
	for network, addr := range map[string]string{"tcp4": "192.0.2.1:30080", "udp4": "192.0.2.1:30053"} {
		answers := map[string]bool{}
		for range 40 {
			c, err := dial(w.client, network, addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			answer, err := askOn(c)
			if err != nil {
				t.Fatal(err)
			}
			flows[network] = append(flows[network], flow{c, answer})
			answers[answer] = true
		}
		if len(answers) != 2 {
			t.Errorf("%s: 40 flows were answered by %v only", network, answers)
		}
	}
	unchanged := func(what string) {
		t.Helper()
		for network, list := range flows {
			for _, f := range list {
				if answer, err := askOn(f); err != nil || answer != f.answer {
					t.Errorf("%s: a %s flow was answered %q, now %q, %v", what, network, f.answer, answer, err)
				}
			}
		}
	}
	unchanged("at once")
	w.nodes[0].dp.Close()
	unchanged("without an agent")
	w.load(w.nodes[0])
	w.replace(0, tcp, udp)
	unchanged("with the next one")

	tcp.Backends, udp.Backends = tcp.Backends[1:], udp.Backends[1:]
	w.replace(0, tcp, udp)
	for _, f := range flows["tcp4"] {
		if answer, err := askOn(f); err != nil || answer != f.answer {
			t.Errorf("an endpoint that goes keeps its connections: %q was %q, %v", answer, f.answer, err)
		}
	}
	for _, f := range flows["udp4"] {
		if answer, err := askOn(f); err != nil || answer != two+" saw 192.0.2.1" {
			t.Errorf("datagrams to an endpoint that is gone: %q, %v", answer, err)
		}
	}
	for range 10 {
		w.expect(w.client, "tcp4", "192.0.2.1:30080", two+" saw 192.0.2.1")
	}
	// Each has two entries; those of datagrams that moved have their old way back as well.
	if err := w.nodes[0].Do(w.nodes[0].dp.Verify); err != nil {
		t.Fatal(err)
	}
	full := metricstest.Values(t, registry, metrics.DatapathMapPressure)["flows"] * (1 << 17)
	if full < 180 || full > 260 {
		t.Errorf("the flow table has %v entries for 90 flows", full)
	}
}

// One port of a client's serves a connection to the pod itself and one to its node port at the same
// time.
func TestNodePortBesideDirect(t *testing.T) {
	w := newWire(t)
	_, ip := w.pod(0, "pod")
	w.replace(0, outside("192.0.2.1:30080", datapath.TCP, ip+":8080"))
	err := w.client.Do(func() error {
		if err := netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 244, 0, 0), Mask: net.CIDRMask(24, 32)}, Gw: net.IPv4(192, 0, 2, 1)}); err != nil {
			return err
		}
		for port := 40000; port < 40010; port++ {
			for _, addr := range []string{"192.0.2.1:30080", ip + ":8080"} {
				d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Timeout: 900 * time.Millisecond, Control: func(_, _ string, c syscall.RawConn) error {
					return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
				}}
				c, err := d.Dial("tcp4", addr)
				if err != nil {
					return err
				}
				t.Cleanup(func() { c.Close() })
				if answer, err := askOn(c); err != nil || answer != ip+" saw "+clientIP {
					return fmt.Errorf("%s from port %d: %q, %w", addr, port, answer, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A client outside keeps its endpoint for as long as the service says, by its address.
func TestAffinityFromOutside(t *testing.T) {
	w := newWire(t)
	tcp := outside("192.0.2.1:30080", datapath.TCP)
	tcp.Affinity = time.Hour
	for i := range 4 {
		_, ip := w.pod(i%2, fmt.Sprint("pod-", i))
		tcp.Backends = append(tcp.Backends, netip.MustParseAddrPort(ip+":8080"))
	}
	slices.SortFunc(tcp.Backends, netip.AddrPort.Compare)
	w.replace(0, tcp)
	chosen := map[string]bool{}
	for i := range 8 {
		client := w.lab.Host(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(110 + i)}), 24))
		first, err := ask(client, "tcp4", "192.0.2.1:30080")
		if err != nil {
			t.Fatal(err)
		}
		endpoint, _, _ := strings.Cut(first, " ")
		chosen[endpoint] = true
		for range 10 {
			w.expect(client, "tcp4", "192.0.2.1:30080", first)
		}
	}
	if len(chosen) < 2 {
		t.Errorf("8 clients were sent to %v only", chosen)
	}
}

// What pods send to the outside comes from their node, what they send to pods and nodes from
// themselves.
func TestMasquerade(t *testing.T) {
	w := newWire(t)
	pod, ip := w.pod(0, "pod")
	_, there := w.pod(1, "there")
	serveSeen(t, w.client, clientIP)
	serveSeen(t, w.nodes[1].Namespace, "192.0.2.2")
	for network, port := range map[string]string{"tcp4": "8080", "udp4": "5353"} {
		for range 3 {
			w.expect(pod, network, clientIP+":"+port, clientIP+" saw 192.0.2.1")
		}
		w.expect(pod, network, there+":"+port, there+" saw "+ip)
		w.expect(pod, network, "192.0.2.2:"+port, "192.0.2.2 saw "+ip)
		w.expect(w.nodes[0].Namespace, network, clientIP+":"+port, clientIP+" saw 192.0.2.1")
	}
	// Two pods with one port between them.
	second, _ := w.pod(0, "second")
	for _, ns := range []*netlab.Namespace{pod, second} {
		err := ns.Do(func() error {
			d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 20000}, Timeout: patience}
			c, err := d.Dial("tcp4", clientIP+":8080")
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			answer, err := askOn(c)
			if err == nil && answer != clientIP+" saw 192.0.2.1" {
				err = errors.New(answer)
			}
			return err
		})
		if err != nil {
			t.Errorf("port 20000 of each pod: %v", err)
		}
	}
	// Who has a route to the pods reaches them by their own addresses.
	err := w.client.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 244, 0, 0), Mask: net.CIDRMask(24, 32)}, Gw: net.IPv4(192, 0, 2, 1)})
	})
	if err != nil {
		t.Fatal(err)
	}
	for network, port := range map[string]string{"tcp4": "8080", "udp4": "5353"} {
		w.expect(w.client, network, ip+":"+port, ip+" saw "+clientIP)
	}
	if err := pod.Do(func() error { return ping(clientIP) }); err != nil {
		t.Errorf("pinging the outside: %v", err)
	}
}

// ping sends an ICMP echo request and waits for the reply to it.
func ping(to string) error { return pingBy("ip4:icmp", 8, 0, to) }

func pingBy(network string, ask, answer byte, to string) error {
	c, err := net.DialIP(network, nil, &net.IPAddr{IP: net.ParseIP(to)})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	request := []byte{ask, 0, 0, 0, 0x12, 0x34, 0, 1, 'x', 'e', 'b', 'e', 'c', '!'}
	var sum uint32
	for i := 0; i < len(request); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(request[i:]))
	}
	binary.BigEndian.PutUint16(request[2:], ^uint16(sum>>16+sum&0xffff))
	if _, err := c.Write(request); err != nil {
		return err
	}
	reply := make([]byte, 128)
	for {
		n, _, err := c.ReadFrom(reply)
		if err != nil {
			return err
		}
		if n == len(request) && reply[0] == answer && bytes.Equal(reply[4:n], request[4:]) {
			return nil
		}
	}
}
