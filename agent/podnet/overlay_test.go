package podnet_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/netlab"
)

func overlay(o podnet.Overlay) func(*podnet.Config) {
	return func(c *podnet.Config) { c.Overlay = o }
}

func at(ip string) func(*podnet.Config) {
	return func(c *podnet.Config) { c.NodeIP = netip.MustParseAddr(ip) }
}

// segments returns a lab of two networks with a router between them that knows
// nothing of pods.
func segments(t *testing.T) *netlab.Lab {
	lab := netlab.New(t)
	lab.Segments(netip.MustParsePrefix("192.0.2.254/24"), netip.MustParsePrefix("198.51.100.254/24"))
	return lab
}

// introduce makes the nodes known to each other.
func introduce(t *testing.T, nodes ...*node) []podnet.NodeRoute {
	t.Helper()
	var routes []podnet.NodeRoute
	for _, n := range nodes {
		routes = append(routes, n.route())
	}
	for _, n := range nodes {
		if err := n.SetNodes(routes); err != nil {
			t.Fatal(err)
		}
	}
	return routes
}

func (n *node) route() podnet.NodeRoute {
	return podnet.NodeRoute{PodCIDR: n.cfg.PodCIDR, NodeIP: n.cfg.NodeIP}
}

// nextHops describes the routes to other nodes' pods.
func nextHops(t *testing.T, n *node) []string {
	t.Helper()
	h, err := n.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	routes, err := h.RouteList(nil, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range routes {
		if r.Protocol != 88 || r.Gw == nil {
			continue
		}
		link, err := h.LinkByIndex(r.LinkIndex)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprint(r.Dst, " via ", r.Gw, " dev ", link.Attrs().Name))
	}
	slices.Sort(out)
	return out
}

// entries describes what the overlay's interface knows of others.
func entries(t *testing.T, n *node) []string {
	t.Helper()
	h, err := n.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(podnet.OverlayLink)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, family := range []int{unix.AF_INET, unix.AF_BRIDGE} {
		list, err := h.NeighList(link.Attrs().Index, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			out = append(out, fmt.Sprint(family, " ", e.IP, " ", e.HardwareAddr))
		}
	}
	slices.Sort(out)
	return out
}

func TestOverlayJoinsNetworks(t *testing.T) {
	lab := segments(t)
	one, two := newNode(t, lab, 1, overlay(podnet.OverlayAuto)), newNode(t, lab, 2, overlay(podnet.OverlayAuto))
	three := newNode(t, lab, 3, overlay(podnet.OverlayAuto), at("198.51.100.3"))
	introduce(t, one, two, three)
	want := []string{"10.244.2.0/24 via 192.0.2.2 dev eth0", "10.244.3.0/24 via 198.51.100.3 dev xebec-vxlan"}
	if got := nextHops(t, one); !slices.Equal(got, want) {
		t.Errorf("next hops %q, want %q", got, want)
	}
	a, b, c := lab.Namespace(), lab.Namespace(), lab.Namespace()
	ipA, ipB, ipC := one.setup(t, "a", a), two.setup(t, "b", b), three.setup(t, "c", c)
	for _, ns := range []*netlab.Namespace{a, b, c} {
		listen(t, ns, ":80")
	}
	for _, test := range []struct {
		what string
		from *netlab.Namespace
		to   netip.Addr
		seen string
	}{
		{"a pod on the same network", a, ipB, ipA.String()},
		{"a pod on another network", a, ipC, ipA.String()},
		{"the way back", c, ipA, ipC.String()},
		{"a pod from a node of another network", one.Namespace, ipC, podnet.OverlayAddress(one.cfg.PodCIDR).String()},
		{"a pod from its node", one.Namespace, ipA, one.cfg.NodeIP.String()},
		{"a pod from a node of the same network", two.Namespace, ipA, two.cfg.NodeIP.String()},
	} {
		if seen, err := reach(test.from, test.to.String()+":80"); err != nil || seen != test.seen {
			t.Errorf("%s: seen as %q, %v; want %q", test.what, seen, err, test.seen)
		}
	}
	for i, want := range []bool{false, false, true} {
		if got := one.Encapsulates([]*node{one, two, three}[i].cfg.NodeIP); got != want {
			t.Errorf("packets of node 1 to node %d are encapsulated: %v", i+1, got)
		}
	}
	if err := ping(c, ipA); err != nil {
		t.Errorf("ping: %v", err)
	}
	for _, way := range []struct {
		from, to *netlab.Namespace
		ip       netip.Addr
	}{{a, c, ipC}, {c, a, ipA}} {
		if err := bulk(t, way.from, way.to, way.ip); err != nil {
			t.Errorf("bulk to %v: %v", way.ip, err)
		}
	}
}

// What pods may send in one packet is what fits through the overlay, and who sends more gets the
// MTU.
func TestOverlayMTU(t *testing.T) {
	lab := segments(t)
	one, two := newNode(t, lab, 1, overlay(podnet.OverlayAuto)), newNode(t, lab, 2, overlay(podnet.OverlayAuto), at("198.51.100.2"))
	introduce(t, one, two)
	a, b := lab.Namespace(), lab.Namespace()
	one.setup(t, "a", a)
	ip := two.setup(t, "b", b)
	echoUDP(t, b)
	const mtu, headers = 1500 - 50, 20 + 8
	client := dialUDP(t, a, ip)
	if err := client.ask(mtu - headers); err != nil {
		t.Errorf("just what fits: %v", err)
	}
	if err := client.ask(8000); err != nil {
		t.Errorf("in fragments: %v", err)
	}
	client.dontFragment(t)
	if err := client.ask(mtu - headers); err != nil {
		t.Errorf("just what fits, unfragmented: %v", err)
	}
	if err := client.ask(mtu - headers + 1); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a byte too many, unfragmented: %v, want %v", err, syscall.EMSGSIZE)
	}

	// A pod from before the overlay sends larger packets: its node says how large
	// they may be.
	h, err := a.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	n, err := one.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	setMTU := func(mtu int) {
		t.Helper()
		eth0, err := h.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		peer, err := n.LinkByIndex(eth0.Attrs().ParentIndex)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(n.LinkSetMTU(peer, mtu), h.LinkSetMTU(eth0, mtu)); err != nil {
			t.Fatal(err)
		}
	}
	setMTU(1500)
	before := dialUDP(t, a, ip)
	before.dontFragment(t)
	if err := before.ask(1500 - headers); err == nil {
		t.Error("more than fits through the overlay was answered")
	}
	if got := before.pathMTU(t); got != mtu {
		t.Errorf("the path's MTU is taken to be %d, want %d", got, mtu)
	}
	if err := before.ask(mtu - headers); err != nil {
		t.Errorf("a packet that fits, after the error: %v", err)
	}
	if err := bulk(t, a, b, ip); err != nil {
		t.Errorf("bulk from a pod with a larger MTU: %v", err)
	}
	// Setting it up again, as a new agent does, repairs it.
	one.setup(t, "a", a)
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if eth0.Attrs().MTU != mtu {
		t.Errorf("the MTU is %d after the pod was set up again", eth0.Attrs().MTU)
	}
}

// The overlay is repaired after any change, and entries are removed with their nodes.
func TestOverlayIsRepaired(t *testing.T) {
	lab := segments(t)
	one := newNode(t, lab, 1, overlay(podnet.OverlayAuto))
	two := newNode(t, lab, 2, overlay(podnet.OverlayAuto), at("198.51.100.2"))
	three := newNode(t, lab, 3, overlay(podnet.OverlayAuto), at("198.51.100.3"))
	routes := introduce(t, one, two, three)
	a, c := lab.Namespace(), lab.Namespace()
	one.setup(t, "a", a)
	ip := three.setup(t, "c", c)
	listen(t, c, ":80")
	wantEntries, wantHops := entries(t, one), nextHops(t, one)
	if len(wantEntries) != 4 || len(wantHops) != 2 {
		t.Fatalf("entries %q, next hops %q", wantEntries, wantHops)
	}
	h, err := one.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link := func() netlink.Link {
		t.Helper()
		l, err := h.LinkByName(podnet.OverlayLink)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	entry := func(family int) *netlink.Neigh {
		t.Helper()
		list, err := h.NeighList(link().Attrs().Index, family)
		if err != nil || len(list) == 0 {
			t.Fatalf("entries: %v, %v", list, err)
		}
		return &list[0]
	}
	repair := func() error {
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := one.Run(ctx, zaptest.NewLogger(t)); !errors.Is(err, context.Canceled) { // one round
			return err
		}
		return nil
	}
	for _, harm := range []struct {
		what string
		do   func() error
	}{
		{"nothing", func() error { return nil }},
		{"a next hop is gone", func() error { return h.NeighDel(entry(unix.AF_INET)) }},
		{"a next hop has another hardware address", func() error {
			e := entry(unix.AF_INET)
			e.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, 1}
			return h.NeighSet(e)
		}},
		{"a node is gone", func() error { e := entry(unix.AF_BRIDGE); e.Flags = netlink.NTF_SELF; return h.NeighDel(e) }},
		{"a stranger was added", func() error {
			return h.NeighSet(&netlink.Neigh{LinkIndex: link().Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
				State: netlink.NUD_PERMANENT, IP: net.IPv4(203, 0, 113, 1), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
		}},
		{"the interface is down", func() error { return h.LinkSetDown(link()) }},
		{"the MTU is another", func() error { return h.LinkSetMTU(link(), 1300) }},
		{"the interface is gone", func() error { return h.LinkDel(link()) }},
		{"another interface has the name", func() error {
			if err := h.LinkDel(link()); err != nil {
				return err
			}
			return h.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: podnet.OverlayLink}, VxlanId: 5, Port: 4789, Learning: true})
		}},
	} {
		if err := harm.do(); err != nil {
			t.Fatalf("%s: %v", harm.what, err)
		}
		if err := repair(); err != nil {
			t.Errorf("%s: %v", harm.what, err)
		}
		if got := entries(t, one); !slices.Equal(got, wantEntries) {
			t.Errorf("%s: entries %q, want %q", harm.what, got, wantEntries)
		}
		if got := nextHops(t, one); !slices.Equal(got, wantHops) {
			t.Errorf("%s: next hops %q, want %q", harm.what, got, wantHops)
		}
		if mtu := link().Attrs().MTU; mtu != 1450 {
			t.Errorf("%s: the MTU is %d", harm.what, mtu)
		}
		if _, err := reach(a, ip.String()+":80"); err != nil {
			t.Errorf("%s: %v", harm.what, err)
		}
	}

	// A new agent leaves what it finds until it knows better.
	index := link().Attrs().Index
	one.restart(t)
	if err := one.RestoreNodes(nil); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, one); !slices.Equal(got, wantEntries) || link().Attrs().Index != index {
		t.Errorf("after a restart: entries %q, want %q", got, wantEntries)
	}
	if _, err := reach(a, ip.String()+":80"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := one.SetNodes(routes[:2]); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, one); len(got) != 2 || !strings.Contains(got[0], "198.51.100.2") {
		t.Errorf("after a node went: entries %q", got)
	}
	if _, err := reach(a, ip.String()+":80"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a node that is gone: %v", err)
	}

	one.cfg.Overlay = podnet.OverlayNever
	one.restart(t)
	if _, err := h.LinkByName(podnet.OverlayLink); err == nil {
		t.Error("the interface stays when the overlay is disabled")
	}
	if err := one.SetNodes(routes); err == nil || !strings.Contains(err.Error(), "198.51.100.2") {
		t.Errorf("nodes out of reach: %v", err)
	}
}

// The overlay's interface is there as long as a node is on another network, and not otherwise.
func TestOverlayOnlyWhereNeeded(t *testing.T) {
	lab := segments(t)
	soon := func(c *podnet.Config) { c.Overlay, c.OverlayGrace = podnet.OverlayAuto, time.Nanosecond }
	one, two := newNode(t, lab, 1, soon), newNode(t, lab, 2, soon)
	far := newNode(t, lab, 3, overlay(podnet.OverlayAuto), at("198.51.100.3"))
	h, err := one.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	check := func(when string, want bool) {
		t.Helper()
		_, err := h.LinkByName(podnet.OverlayLink)
		if _, missing := errors.AsType[netlink.LinkNotFoundError](err); err != nil && !missing || missing == want {
			t.Errorf("%s: %v; want an interface: %v", when, err, want)
		}
	}
	repair := func() {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := one.Run(ctx, zaptest.NewLogger(t)); !errors.Is(err, context.Canceled) { // one round
			t.Fatal(err)
		}
	}
	check("alone", false)
	near := introduce(t, one, two)
	check("all nodes on one network", false)
	repair()
	check("after a repair", false)
	all := introduce(t, one, two, far)
	check("a node on another network", true)
	a, c := lab.Namespace(), lab.Namespace()
	one.setup(t, "a", a)
	ip := far.setup(t, "c", c)
	listen(t, c, ":80")
	if _, err := reach(a, ip.String()+":80"); err != nil {
		t.Errorf("a pod on another network: %v", err)
	}
	one.restart(t)
	check("after a restart", true)
	if err := one.RestoreNodes(near); err != nil {
		t.Fatal(err)
	}
	check("before the nodes are known", true)
	if err := one.SetNodes(all); err != nil {
		t.Fatal(err)
	}
	if _, err := reach(a, ip.String()+":80"); err != nil {
		t.Errorf("a pod on another network, after a restart: %v", err)
	}
	for range 2 { // the first round finds that it is not needed any more
		if err := one.SetNodes(near); err != nil {
			t.Fatal(err)
		}
	}
	check("the node on another network has gone", false)
	if got, want := nextHops(t, one), []string{"10.244.2.0/24 via 192.0.2.2 dev eth0"}; !slices.Equal(got, want) {
		t.Errorf("next hops %q, want %q", got, want)
	}
	if err := one.SetNodes(all); err != nil {
		t.Fatal(err)
	}
	check("it is back", true)
}

func TestOverlayAlways(t *testing.T) {
	lab := netlab.New(t)
	one, two := newNode(t, lab, 1, overlay(podnet.OverlayAlways)), newNode(t, lab, 2, overlay(podnet.OverlayAlways))
	introduce(t, one, two)
	if got, want := nextHops(t, one), []string{"10.244.2.0/24 via 192.0.2.2 dev xebec-vxlan"}; !slices.Equal(got, want) {
		t.Errorf("next hops %q, want %q", got, want)
	}
	a, b := lab.Namespace(), lab.Namespace()
	ipA, ipB := one.setup(t, "a", a), two.setup(t, "b", b)
	listen(t, b, ":80")
	if seen, err := reach(a, ipB.String()+":80"); err != nil || seen != ipA.String() {
		t.Errorf("seen as %q, %v", seen, err)
	}
	// One side only encapsulates, as while a cluster changes over: each route is
	// replaced without a gap, and packets come by either way.
	two.cfg.Overlay = podnet.OverlayAuto
	two.restart(t)
	if err := two.SetNodes([]podnet.NodeRoute{one.route(), two.route()}); err != nil {
		t.Fatal(err)
	}
	if got, want := nextHops(t, two), []string{"10.244.1.0/24 via 192.0.2.1 dev eth0"}; !slices.Equal(got, want) {
		t.Errorf("next hops %q, want %q", got, want)
	}
	if seen, err := reach(a, ipB.String()+":80"); err != nil || seen != ipA.String() {
		t.Errorf("one side encapsulates: seen as %q, %v", seen, err)
	}
}

// bulk sends some megabytes over TCP and compares what arrives.
func bulk(t *testing.T, from, to *netlab.Namespace, ip netip.Addr) error {
	t.Helper()
	const size = 16 << 20
	var l net.Listener
	err := to.Do(func() (err error) { l, err = net.Listen("tcp", ":0"); return err })
	if err != nil {
		return err
	}
	defer l.Close()
	data := make([]byte, size)
	rand.Read(data)
	got := make(chan [sha256.Size]byte, 1)
	go func() {
		var sum [sha256.Size]byte
		defer func() { got <- sum }()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		h := sha256.New()
		io.Copy(h, c)
		h.Sum(sum[:0])
	}()
	var c net.Conn
	err = from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(ip, uint16(l.Addr().(*net.TCPAddr).Port)).String(), 20*time.Second)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(c, bytes.NewReader(data)); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	select {
	case sum := <-got:
		if sum != sha256.Sum256(data) {
			return errors.New("other bytes arrived than were sent")
		}
		return nil
	case <-time.After(time.Minute):
		return errors.New("not all arrived")
	}
}

// ping sends an ICMP echo by an unprivileged socket and waits for the answer.
func ping(from *netlab.Namespace, ip netip.Addr) error {
	return from.Do(func() error {
		c, err := net.Dial("ip4:icmp", ip.String())
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		// Echo, code 0, checksum of the words that are not zero, identifier 0, sequence 1.
		if _, err := c.Write([]byte{8, 0, 0xf7, 0xfe, 0, 0, 0, 1}); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 64))
		return err
	})
}

const echoPort = 5353

// echoUDP answers each datagram with its length.
func echoUDP(t *testing.T, ns *netlab.Namespace) {
	t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) { c, err = net.ListenUDP("udp", &net.UDPAddr{Port: echoPort}); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDP(buf)
			if err != nil {
				return
			}
			fmt.Fprint(&to{c, from}, n)
		}
	}()
}

type to struct {
	c    *net.UDPConn
	addr *net.UDPAddr
}

func (t *to) Write(b []byte) (int, error) { return t.c.WriteToUDP(b, t.addr) }

type udpClient struct{ *net.UDPConn }

func dialUDP(t *testing.T, from *netlab.Namespace, ip netip.Addr) udpClient {
	t.Helper()
	var c *net.UDPConn
	err := from.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, echoPort)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return udpClient{c}
}

// ask sends so many bytes and waits to hear that as many arrived.
func (c udpClient) ask(size int) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(make([]byte, size)); err != nil {
		return err
	}
	for buf := make([]byte, 16); ; {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if string(buf[:n]) == fmt.Sprint(size) {
			return nil
		}
	}
}

func (c udpClient) control(t *testing.T, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
}

func (c udpClient) dontFragment(t *testing.T) {
	c.control(t, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
}

func (c udpClient) pathMTU(t *testing.T) (mtu int) {
	c.control(t, func(fd int) (err error) {
		mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		return err
	})
	return mtu
}
