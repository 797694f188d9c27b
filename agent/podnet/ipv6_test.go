package podnet_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/netlab"
)

// dualStack gives node i the IPv6 pods of fd00:10:244:i::/64.
func dualStack(c *podnet.Config) {
	i := c.PodCIDR.Addr().As4()[2]
	c.PodCIDR6 = netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", i))
	c.ClusterCIDR6, c.ServiceCIDR6 = netip.MustParsePrefix("fd00:10:244::/56"), netip.MustParsePrefix("fd00:10:96::/112")
}

func needIPv6(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		netlab.Missing(t, "IPv6")
	}
}

// introduce6 makes the nodes known to each other with all their pods.
func introduce6(t *testing.T, nodes ...*node) {
	t.Helper()
	var routes []podnet.NodeRoute
	for _, n := range nodes {
		four, six := n.route(), n.route()
		six.PodCIDR, six.NodeIP6 = n.cfg.PodCIDR6, n.cfg.NodeIP6
		routes = append(routes, four, six)
	}
	for _, n := range nodes {
		if err := n.SetNodes(routes); err != nil {
			t.Fatal(err)
		}
	}
}

func setup6(t *testing.T, n *node, uid string, pod *netlab.Namespace) netip.Addr {
	t.Helper()
	result, err := n.Setup(t.Context(), uid, pod.Path())
	if err != nil {
		t.Fatal(err)
	}
	return result.IP6
}

// listen6 answers each IPv6 connection with the address that it comes from.
func listen6(t *testing.T, ns *netlab.Namespace) {
	t.Helper()
	var l net.Listener
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp6", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
}

func reach6(ns *netlab.Namespace, ip netip.Addr) (seen string, err error) {
	err = ns.Do(func() error {
		c, err := net.DialTimeout("tcp6", netip.AddrPortFrom(ip, 80).String(), 20*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		seen = string(buf[:n])
		return err
	})
	return seen, err
}

func flagsOf(t *testing.T, ns *netlab.Namespace, ip netip.Addr) int {
	t.Helper()
	h, err := ns.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	addrs, err := h.AddrList(nil, unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if have, ok := netip.AddrFromSlice(a.IP); ok && have == ip {
			return a.Flags
		}
	}
	t.Errorf("the pod has no address %v", ip)
	return 0
}

func addIPv6(t *testing.T, ns *netlab.Namespace, addr string) {
	t.Helper()
	h, err := ns.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix(addr)
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 128)}
	if err := h.AddrAdd(eth0, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD}); err != nil {
		t.Fatal(err)
	}
}

// hops6 describes the IPv6 routes to other nodes' pods.
func hops6(t *testing.T, n *node) []string {
	t.Helper()
	h, err := n.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	routes, err := h.RouteList(nil, unix.AF_INET6)
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

// Nodes that have IPv4 only among themselves carry their pods' IPv6 through the overlay.
func TestDualStackThroughOverlay(t *testing.T) {
	needIPv6(t)
	lab := segments(t)
	one := newNode(t, lab, 1, dualStack, overlay(podnet.OverlayAuto))
	two := newNode(t, lab, 2, dualStack, overlay(podnet.OverlayAuto))
	three := newNode(t, lab, 3, dualStack, overlay(podnet.OverlayAuto), at("198.51.100.3"))
	introduce6(t, one, two, three)
	want := []string{
		"fd00:10:244:2::/64 via fe80::a59:0:c000:202 dev xebec-vxlan", "fd00:10:244:3::/64 via fe80::a59:0:c633:6403 dev xebec-vxlan",
	}
	if got := hops6(t, one); !slices.Equal(got, want) {
		t.Errorf("IPv6 next hops %q, want %q", got, want)
	}
	if got, want := nextHops(t, one)[0], "10.244.2.0/24 via 192.0.2.2 dev eth0"; got != want {
		t.Errorf("an IPv4 next hop is %q, want %q", got, want)
	}

	a, b, c, d := lab.Namespace(), lab.Namespace(), lab.Namespace(), lab.Namespace()
	ipA, ipB := setup6(t, one, "a", a), setup6(t, one, "b", b)
	for _, ns := range []*netlab.Namespace{a, b, c, d} {
		listen6(t, ns)
	}
	// Without the second of duplicate address detection.
	if flags := flagsOf(t, a, ipA); flags&unix.IFA_F_NODAD == 0 {
		t.Errorf("the address has flags %#x: connections wait until no duplicate is found", flags)
	}
	ipC, ipD := setup6(t, two, "c", c), setup6(t, three, "d", d)
	if ipA != netip.MustParseAddr("fd00:10:244:1::2") || ipD != netip.MustParseAddr("fd00:10:244:3::2") {
		t.Errorf("the addresses are %v and %v", ipA, ipD)
	}
	for _, test := range []struct {
		what string
		from *netlab.Namespace
		to   netip.Addr
		seen string
	}{
		{"a pod on the same node", a, ipB, ipA.String()},
		{"the pod itself", a, ipA, ipA.String()},
		{"a pod of the same network's node", a, ipC, ipA.String()},
		{"a pod of another network's node", a, ipD, ipA.String()},
		{"the way back", d, ipA, ipD.String()},
		{"a pod from its node", one.Namespace, ipA, "fd00:10:244:1::1"},
		{"a pod from another node", one.Namespace, ipD, "fd00:10:244:1::1"},
	} {
		if seen, err := reach6(test.from, test.to); err != nil || seen != test.seen {
			t.Errorf("%s: seen as %q, %v; want %q", test.what, seen, err, test.seen)
		}
	}
	if err := bulk(t, a, d, ipD); err != nil {
		t.Errorf("bulk: %v", err)
	}
	for _, stray := range []string{"fd00:10:244:77::1", "fd00:10:96::77", "fd00:10:244:1::77"} {
		if _, err := reach6(a, netip.MustParseAddr(stray)); !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("%s: %v, want no route", stray, err)
		}
	}

	// A restarted agent changes nothing.
	one.restart(t)
	if err := one.RestoreNodes(nil); err != nil {
		t.Fatal(err)
	}
	if got := hops6(t, one); !slices.Equal(got, want) {
		t.Errorf("after a restart: IPv6 next hops %q, want %q", got, want)
	}
	if again := setup6(t, one, "a", a); again != ipA {
		t.Errorf("the address was %v and is %v", ipA, again)
	}
	if _, err := reach6(d, ipA); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := one.SetNodes([]podnet.NodeRoute{two.route()}); err != nil {
		t.Fatal(err)
	}
	if got := hops6(t, one); len(got) != 0 {
		t.Errorf("next hops to nodes that went: %q", got)
	}
	for _, e := range entries(t, one) {
		t.Errorf("left in the overlay: %s", e)
	}
}

// Nodes with an IPv6 network of their own route to each other, and a pod from before the cluster
// was dual-stack gets an address when it is set up again.
func TestDualStackRoutes(t *testing.T) {
	needIPv6(t)
	lab := netlab.New(t)
	one, two := newNode(t, lab, 1), newNode(t, lab, 2)
	a, b := lab.Namespace(), lab.Namespace()
	ip4 := one.setup(t, "a", a)
	for _, n := range []*node{one, two} {
		dualStack(&n.cfg)
		n.cfg.NodeIP6 = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n.cfg.NodeIP.As4()[3]))
		addIPv6(t, n.Namespace, n.cfg.NodeIP6.String()+"/64")
		n.restart(t)
	}
	introduce6(t, one, two)
	if got, want := hops6(t, one), []string{"fd00:10:244:2::/64 via 2001:db8::2 dev eth0"}; !slices.Equal(got, want) {
		t.Errorf("next hops %q, want %q", got, want)
	}
	result, err := one.Setup(t.Context(), "a", a.Path())
	if err != nil || result.IP != ip4 || result.IP6 != one.IP6(ip4) {
		t.Fatalf("set up again: %+v, %v", result, err)
	}
	ipB := setup6(t, two, "b", b)
	listen6(t, a)
	listen6(t, b)
	for _, test := range []struct {
		from *netlab.Namespace
		to   netip.Addr
		seen string
	}{{a, ipB, result.IP6.String()}, {b, result.IP6, ipB.String()}, {one.Namespace, ipB, "2001:db8::1"}, {one.Namespace, result.IP6, "2001:db8::1"}} {
		seen, err := reach6(test.from, test.to)
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); {
			seen, err = reach6(test.from, test.to) // an interface takes a moment to look for neighbours
		}
		if err != nil || seen != test.seen {
			t.Errorf("%v: seen as %q, %v; want %q", test.to, seen, err, test.seen)
		}
	}
	// Nodes without an overlay and a common network are reported.
	far := two.route()
	far.PodCIDR = netip.MustParsePrefix("fd00:10:244:9::/64")
	if err := one.SetNodes([]podnet.NodeRoute{far}); err == nil || !strings.Contains(err.Error(), "share no IPv6 network") {
		t.Errorf("a node without an IPv6 address: %v", err)
	}
}

func TestIPv6ConfigIsChecked(t *testing.T) {
	good := podnet.Config{
		PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), NodeIP: netip.MustParseAddr("192.0.2.1"), StateDir: t.TempDir(),
	}
	dualStack(&good)
	for what, change := range map[string]func(*podnet.Config){
		"no pods":              func(c *podnet.Config) { c.PodCIDR6 = netip.Prefix{} },
		"IPv4":                 func(c *podnet.Config) { c.PodCIDR6 = c.PodCIDR },
		"host bits":            func(c *podnet.Config) { c.PodCIDR6 = netip.MustParsePrefix("fd00:10:244:1::1/64") },
		"too small":            func(c *podnet.Config) { c.PodCIDR6 = netip.MustParsePrefix("fd00:10:244:1::/121") },
		"outside":              func(c *podnet.Config) { c.PodCIDR6 = netip.MustParsePrefix("fd00:10:245::/64") },
		"no cluster":           func(c *podnet.Config) { c.ClusterCIDR6 = netip.Prefix{} },
		"overlapping services": func(c *podnet.Config) { c.ServiceCIDR6 = netip.MustParsePrefix("fd00:10:244:2::/112") },
		"IPv4 node":            func(c *podnet.Config) { c.NodeIP6 = c.NodeIP },
	} {
		cfg := good
		change(&cfg)
		if n, err := podnet.New(cfg); err == nil || strings.Contains(err.Error(), "no interface") {
			if n != nil {
				n.Close()
			}
			t.Errorf("%s: %v", what, err)
		}
	}
}
