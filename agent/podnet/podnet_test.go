package podnet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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

type node struct {
	*netlab.Namespace
	*podnet.Network
	cfg podnet.Config
}

// newNode makes node i: 192.0.2.i with the pods of 10.244.i.0/24.
func newNode(t *testing.T, lab *netlab.Lab, i byte, change ...func(*podnet.Config)) *node {
	t.Helper()
	n := &node{cfg: podnet.Config{
		PodCIDR:     netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, i, 0}), 24),
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
		NodeIP:      netip.AddrFrom4([4]byte{192, 0, 2, i}),
		DNSIP:       netip.MustParseAddr("10.96.0.10"),
		StateDir:    t.TempDir(),
	}}
	for _, f := range change {
		f(&n.cfg)
	}
	n.Namespace = lab.Host(netip.PrefixFrom(n.cfg.NodeIP, 24))
	n.restart(t)
	t.Cleanup(func() { n.Network.Close() })
	return n
}

func (n *node) restart(t *testing.T) {
	t.Helper()
	if n.Network != nil {
		n.Network.Close()
	}
	err := n.Do(func() (err error) {
		n.Network, err = podnet.New(n.cfg)
		return err
	})
	if err != nil {
		t.Fatalf("podnet.New: %v", err)
	}
}

func (n *node) setup(t *testing.T, uid string, pod *netlab.Namespace) netip.Addr {
	t.Helper()
	result, err := n.Setup(t.Context(), uid, pod.Path())
	if err != nil {
		t.Fatal(err)
	}
	return result.IP
}

func listen(t *testing.T, ns *netlab.Namespace, addr string) {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) { l, err = net.Listen("tcp4", addr); return err })
	if err != nil {
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

// reach connects and returns the address that the server saw.
func reach(ns *netlab.Namespace, addr string) (string, error) {
	var seen string
	err := ns.Do(func() error {
		c, err := net.DialTimeout("tcp4", addr, 20*time.Second)
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

func TestPodsReachEachOther(t *testing.T) {
	lab := netlab.New(t)
	one, two := newNode(t, lab, 1), newNode(t, lab, 2)
	routes := []podnet.NodeRoute{{PodCIDR: one.cfg.PodCIDR, NodeIP: one.cfg.NodeIP}, {PodCIDR: two.cfg.PodCIDR, NodeIP: two.cfg.NodeIP}}
	for _, n := range []*node{one, two} {
		if err := n.SetNodes(routes); err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := lab.Namespace(), lab.Namespace(), lab.Namespace()
	ipA, ipB, ipC := one.setup(t, "a", a), one.setup(t, "b", b), two.setup(t, "c", c)
	for _, ns := range []*netlab.Namespace{a, b, c, one.Namespace} {
		listen(t, ns, ":80")
	}
	for _, test := range []struct {
		what string
		from *netlab.Namespace
		to   string
		seen string
	}{
		{"a pod on the same node", a, ipB.String(), ipA.String()},
		{"a pod on another node", a, ipC.String(), ipA.String()},
		{"the way back", c, ipA.String(), ipC.String()},
		{"the pod itself", a, ipA.String(), ipA.String()},
		{"the pod's node", a, one.cfg.NodeIP.String(), ipA.String()},
		{"a pod from its node", one.Namespace, ipA.String(), one.cfg.NodeIP.String()},
		{"a pod from another node", two.Namespace, ipA.String(), two.cfg.NodeIP.String()},
		{"the DNS address", a, "10.96.0.10", ipA.String()},
	} {
		if seen, err := reach(test.from, test.to+":80"); err != nil || seen != test.seen {
			t.Errorf("%s: seen as %q, %v; want %q", test.what, seen, err, test.seen)
		}
	}

	// Nothing that is the cluster's leaves by another way, and no client waits. The kernel tells each
	// source a few times a second only, so each has its own.
	for i, stray := range []string{"10.244.77.1:80", "10.96.0.77:80", "10.244.1.200:80"} {
		pod := lab.Namespace()
		one.setup(t, fmt.Sprint("stray-", i), pod)
		began := time.Now()
		// Who asked for a neighbour in vain would learn it after three seconds.
		if _, err := reach(pod, stray); !errors.Is(err, syscall.EHOSTUNREACH) || time.Since(began) > 2500*time.Millisecond {
			t.Errorf("%s: %v after %v, want no route at once", stray, err, time.Since(began))
		}
	}

	// A restarted agent changes nothing, also when it sets everything up again.
	one.restart(t)
	if again := one.setup(t, "a", a); again != ipA {
		t.Errorf("the address was %v and is %v", ipA, again)
	}
	if _, err := reach(c, ipA.String()+":80"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := one.Teardown(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if err := one.Teardown(t.Context(), "a"); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if _, err := reach(c, ipA.String()+":80"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a pod that is gone: %v, want no route", err)
	}
}

// A pod cannot pass for another.
func TestSourceIsChecked(t *testing.T) {
	lab := netlab.New(t)
	n := newNode(t, lab, 1)
	a, b := lab.Namespace(), lab.Namespace()
	n.setup(t, "a", a)
	target := n.setup(t, "b", b)
	h, err := a.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	forged := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 244, 1, 99), Mask: net.CIDRMask(32, 32)}}
	if err := h.AddrAdd(eth0, forged); err != nil {
		t.Fatal(err)
	}
	listen(t, b, ":80")
	err = a.Do(func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: forged.IP}, Timeout: 300 * time.Millisecond}
		c, err := d.Dial("tcp4", target.String()+":80")
		if err == nil {
			c.Close()
		}
		return err
	})
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("with a forged address: %v, want a timeout", err)
	}
	if _, err := reach(a, target.String()+":80"); err != nil {
		t.Errorf("with its own: %v", err)
	}
}

func TestRetain(t *testing.T) {
	lab := netlab.New(t)
	n := newNode(t, lab, 1)
	keep, leak := lab.Namespace(), lab.Namespace()
	kept := n.setup(t, "keep", keep)
	leaked := n.setup(t, "leak", leak)
	// A crash between the two halves of a teardown leaves an interface only.
	n.setup(t, "half", lab.Namespace())
	if err := os.Remove(filepath.Join(n.cfg.StateDir, "addresses", "half")); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if err := n.Retain(t.Context(), []string{"keep"}); err != nil {
		t.Fatal(err)
	}
	h, err := n.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "xeb-") {
			ours = append(ours, l.Attrs().Name)
		}
	}
	files, err := os.ReadDir(filepath.Join(n.cfg.StateDir, "addresses"))
	if err != nil {
		t.Fatal(err)
	}
	if len(ours) != 1 || len(files) != 1 || files[0].Name() != "keep" {
		t.Errorf("left are %v and %v", ours, files)
	}
	listen(t, keep, ":80")
	if _, err := reach(n.Namespace, kept.String()+":80"); err != nil {
		t.Errorf("the pod that stays: %v", err)
	}
	if _, err := reach(n.Namespace, leaked.String()+":80"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("the pod that went: %v", err)
	}
}

func routesVia(t *testing.T, n *node) map[string]string {
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
	out := make(map[string]string)
	for _, r := range routes {
		if r.Gw != nil {
			out[r.Dst.String()] = r.Gw.String()
		}
	}
	return out
}

func TestSetNodes(t *testing.T) {
	lab := netlab.New(t)
	n := newNode(t, lab, 1)
	h, err := n.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	foreign := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4(198, 51, 100, 0), Mask: net.CIDRMask(24, 32)}, Gw: net.IPv4(192, 0, 2, 9)}
	if err := h.RouteAdd(foreign); err != nil {
		t.Fatal(err)
	}
	route := func(cidr, via string) podnet.NodeRoute {
		return podnet.NodeRoute{PodCIDR: netip.MustParsePrefix(cidr), NodeIP: netip.MustParseAddr(via)}
	}
	for _, step := range []struct {
		nodes []podnet.NodeRoute
		want  string
		fails bool
	}{
		{[]podnet.NodeRoute{route("10.244.1.0/24", "192.0.2.1"), route("10.244.2.0/24", "192.0.2.2")}, "map[10.244.2.0/24:192.0.2.2 198.51.100.0/24:192.0.2.9]", false},
		{[]podnet.NodeRoute{route("10.244.2.0/24", "192.0.2.3"), route("10.244.4.0/24", "192.0.2.4")}, "map[10.244.2.0/24:192.0.2.3 10.244.4.0/24:192.0.2.4 198.51.100.0/24:192.0.2.9]", false},
		{[]podnet.NodeRoute{route("10.244.5.0/24", "203.0.113.1"), route("10.244.4.0/24", "192.0.2.4")}, "map[10.244.4.0/24:192.0.2.4 198.51.100.0/24:192.0.2.9]", true},
		{nil, "map[198.51.100.0/24:192.0.2.9]", false},
	} {
		if err := n.SetNodes(step.nodes); (err != nil) != step.fails {
			t.Errorf("%v: %v", step.nodes, err)
		}
		if got := fmt.Sprint(routesVia(t, n)); got != step.want {
			t.Errorf("routes are %s, want %s", got, step.want)
		}
	}
}

// The routes of an agent before stay until the nodes are known, and what is remembered is added to
// them.
func TestRestoreNodes(t *testing.T) {
	lab := netlab.New(t)
	n := newNode(t, lab, 1)
	route := func(i, via byte) podnet.NodeRoute {
		return podnet.NodeRoute{PodCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, i, 0}), 24), NodeIP: netip.AddrFrom4([4]byte{192, 0, 2, via})}
	}
	if err := n.SetNodes([]podnet.NodeRoute{route(2, 2), route(3, 3)}); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := n.Run(ctx, zaptest.NewLogger(t)); !errors.Is(err, context.Canceled) { // one round of repairs
		t.Fatal(err)
	}
	expect := func(what, want string) {
		t.Helper()
		if got := fmt.Sprint(routesVia(t, n)); got != want {
			t.Errorf("%s: routes are %s, want %s", what, got, want)
		}
	}
	expect("nothing is known", "map[10.244.2.0/24:192.0.2.2 10.244.3.0/24:192.0.2.3]")
	if err := n.RestoreNodes([]podnet.NodeRoute{route(1, 1), route(3, 9), route(4, 4)}); err != nil {
		t.Fatal(err)
	}
	expect("remembered", "map[10.244.2.0/24:192.0.2.2 10.244.3.0/24:192.0.2.3 10.244.4.0/24:192.0.2.4]")
	if err := n.SetNodes([]podnet.NodeRoute{route(3, 9)}); err != nil {
		t.Fatal(err)
	}
	if err := n.RestoreNodes([]podnet.NodeRoute{route(4, 4)}); err != nil {
		t.Fatal(err)
	}
	expect("known", "map[10.244.3.0/24:192.0.2.9]")
}

// An interface that goes down takes its routes along; Run puts them back.
func TestRunRepairs(t *testing.T) {
	lab := netlab.New(t)
	n := newNode(t, lab, 1)
	if err := n.SetNodes([]podnet.NodeRoute{{PodCIDR: netip.MustParsePrefix("10.244.2.0/24"), NodeIP: netip.MustParseAddr("192.0.2.2")}}); err != nil {
		t.Fatal(err)
	}
	h, err := n.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- n.Run(ctx, zaptest.NewLogger(t)) }()
	if err := h.LinkSetDown(eth0); err != nil {
		t.Fatal(err)
	}
	if got := routesVia(t, n); len(got) != 0 {
		t.Fatalf("routes through an interface that is down: %v", got)
	}
	changed := make(chan netlink.RouteUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	if err := n.Do(func() error { return netlink.RouteSubscribe(changed, done) }); err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(eth0); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for routesVia(t, n)["10.244.2.0/24"] == "" {
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("the route did not come back")
		}
	}
	stop()
	if err := <-ran; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := podnet.Config{
		PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), NodeIP: netip.MustParseAddr("192.0.2.1"), StateDir: t.TempDir(),
	}
	for what, change := range map[string]func(*podnet.Config){
		"no pod CIDR":            func(c *podnet.Config) { c.PodCIDR = netip.Prefix{} },
		"host bits":              func(c *podnet.Config) { c.PodCIDR = netip.MustParsePrefix("10.244.1.7/24") },
		"too small":              func(c *podnet.Config) { c.PodCIDR = netip.MustParsePrefix("10.244.1.0/31") },
		"outside of the cluster": func(c *podnet.Config) { c.PodCIDR = netip.MustParsePrefix("10.245.1.0/24") },
		"larger than it":         func(c *podnet.Config) { c.PodCIDR = netip.MustParsePrefix("10.244.0.0/15") },
		"overlapping services":   func(c *podnet.Config) { c.ServiceCIDR = netip.MustParsePrefix("10.244.128.0/17") },
		"no node address":        func(c *podnet.Config) { c.NodeIP = netip.Addr{} },
		"no state directory":     func(c *podnet.Config) { c.StateDir = "" },
	} {
		cfg := good
		change(&cfg)
		if n, err := podnet.New(cfg); err == nil {
			n.Close()
			t.Errorf("%s: no error", what)
		}
	}
}
