package datapath_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/internal/netlab"
)

const balancerIP = "192.0.2.200"

// announce makes a node answer for these addresses.
func (w *wire) announce(node int, addrs ...string) {
	w.t.Helper()
	var list []netip.Addr
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	n := w.nodes[node]
	if err := n.Do(func() error { return n.dp.Announce(list) }); err != nil {
		w.t.Fatal(err)
	}
}

// The wire has an address no machine has. Who announces it is asked for it, and when
// another node takes over, clients follow without waiting for their caches.
func TestAnnouncedAddress(t *testing.T) { testAnnouncedAddress(t, ends4, balancerIP, ping) }

func TestAnnouncedAddressByIPv6(t *testing.T) {
	testAnnouncedAddress(t, ends6, "2001:db8::200", ping6, dualStack)
}

func testAnnouncedAddress(t *testing.T, e ends, ip string, ping func(string) error, change ...func(*datapath.Config)) {
	const shortly = 500 * time.Millisecond // what is not to be answered
	w := newWire(t, change...)
	_, here := e.pod(w, 0, "here")
	_, there := e.pod(w, 1, "there")
	web, names := hostPort(ip, 80), hostPort(ip, 53)
	for i, backend := range []string{here, there} {
		w.replace(i, outside(web, datapath.TCP, hostPort(backend, 8080)), outside(names, datapath.UDP, hostPort(backend, 5353)))
	}
	if _, err := askFor(w.client, e.tcp, web, shortly); err == nil {
		t.Error("an address that no node announces was reached")
	}
	w.announce(0, ip, netip.MustParseAddr(ip).Next().String())
	w.expect(w.client, e.tcp, web, here+" saw "+e.client)
	w.expect(w.client, e.udp, names, here+" saw "+e.client)
	w.announce(0, ip) // it lapses, and the machine may be slow
	if err := w.client.Do(func() error { return ping(ip) }); err != nil {
		t.Errorf("ping: %v", err)
	}
	w.transfer(web)
	if _, err := askFor(w.client, e.tcp, hostPort(ip, 81), shortly); err == nil {
		t.Error("a port that no service has was reached")
	}

	// The old node is gone, as the client's cache has it still.
	w.announce(0)
	await(t, "the client follows", func() error {
		w.announce(1, ip)
		got, err := ask(w.client, e.tcp, web)
		if want := there + " saw " + e.client; err != nil || got != want {
			return fmt.Errorf("%q, %v; want %q", got, err, want)
		}
		return nil
	})

	// An agent that died long ago answers for nothing.
	n := w.nodes[1]
	addr := netip.MustParseAddr(ip)
	name := bpf.UplinkMapAnnounced
	if addr.Is6() {
		name = bpf.Uplink6MapAnnounced6
	}
	announced, err := ebpf.LoadPinnedMap(filepath.Join(n.cfg.PinPath, "maps-v2", name), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer announced.Close()
	key := addr.AsSlice()
	var value bpf.UplinkAnnouncement
	if err := announced.Lookup(key, &value); err != nil {
		t.Fatal(err)
	}
	value.Until = 1
	if err := announced.Put(key, value); err != nil {
		t.Fatal(err)
	}
	stranger := w.lab.Host(netip.MustParsePrefix("192.0.2.101/24"))
	strangerIP := "192.0.2.101"
	if addr.Is6() {
		strangerIP = "2001:db8::101"
		addAddress(t, stranger, strangerIP+"/64")
	}
	if _, err := askFor(stranger, e.tcp, web, shortly); err == nil {
		t.Error("the announcement of an agent that died is still answered")
	}
	if err := n.Do(n.dp.Renew); err != nil {
		t.Fatal(err)
	}
	if err := announced.Lookup(key, &value); err != nil || value.Until != 1 {
		t.Errorf("an announcement that has lapsed came back to life: %+v, %v", value, err)
	}
	w.announce(1, ip)
	if err := announced.Lookup(key, &value); err != nil {
		t.Fatal(err)
	}
	until := value.Until
	if err := n.Do(n.dp.Renew); err != nil {
		t.Fatal(err)
	}
	if err := announced.Lookup(key, &value); err != nil || value.Until <= until {
		t.Errorf("not renewed: %d, was %d, %v", value.Until, until, err)
	}
	w.announce(1, ip)
	w.expect(stranger, e.tcp, web, there+" saw "+strangerIP)
}

// await tries until it works, with a limit.
func await(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		case <-again.C:
		}
	}
}

func TestSourceRanges(t *testing.T) {
	w := newWire(t)
	_, ip := w.pod(0, "pod")
	w.announce(0, balancerIP)
	stranger := w.lab.Host(netip.MustParsePrefix("192.0.2.101/24"))
	restricted := func(port int, ranges ...string) datapath.Service {
		s := outside(fmt.Sprint(balancerIP, ":", port), datapath.TCP, ip+":8080")
		for _, r := range ranges {
			s.Sources = append(s.Sources, netip.MustParsePrefix(r))
		}
		return s
	}
	w.replace(0, restricted(80, clientIP+"/32"), restricted(81, "10.0.0.0/8", "192.0.2.64/27"), restricted(82))
	refused := func(from *netlab.Namespace, port int) {
		t.Helper()
		_ = from.Do(func() error {
			c, err := net.DialTimeout("tcp4", fmt.Sprint(balancerIP, ":", port), 500*time.Millisecond)
			if err == nil {
				t.Errorf("port %d is open to who is in no range", port)
				c.Close()
			}
			return nil
		})
	}
	w.expect(w.client, "tcp4", balancerIP+":80", ip+" saw "+clientIP)
	refused(stranger, 80)
	refused(w.client, 81)
	w.expect(w.client, "tcp4", balancerIP+":82", ip+" saw "+clientIP)

	// A connection that stands outlives the change; new ones do not come about.
	c, err := dial(w.client, "tcp4", balancerIP+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := askOn(c); err != nil {
		t.Fatal(err)
	}
	w.replace(0, restricted(80, "192.0.2.101/32"), restricted(81, "192.0.2.96/27"), restricted(82, clientIP+"/32"))
	if _, err := askOn(c); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	refused(w.client, 80)
	w.expect(stranger, "tcp4", balancerIP+":80", ip+" saw 192.0.2.101")
	w.expect(w.client, "tcp4", balancerIP+":81", ip+" saw "+clientIP)
	refused(stranger, 82)

	// What the maps hold is read back, and nothing is left of what was replaced.
	n := w.nodes[0]
	held, err := n.dp.Dump()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"[192.0.2.101/32]", "[192.0.2.96/27]", "[" + clientIP + "/32]"} {
		if got := fmt.Sprint(held[i].Sources); got != want {
			t.Errorf("%v is for %s, want %s", held[i].Frontend, got, want)
		}
	}
	ranges, err := ebpf.LoadPinnedMap(filepath.Join(n.cfg.PinPath, "maps-v2", bpf.UplinkMapSourceRanges), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ranges.Close()
	var k bpf.UplinkSourceRange
	var v uint8
	entries := 0
	for it := ranges.Iterate(); it.Next(&k, &v); {
		entries++
	}
	if entries != 3 {
		t.Errorf("%d ranges are in the map, want 3", entries)
	}
}

// A flow has the same endpoint on every node, and keeps it when its entry is lost.
func TestMaglev(t *testing.T) {
	w := newWire(t)
	var backends []string
	for i := range 4 {
		_, ip := w.pod(i%2, fmt.Sprint("pod-", i))
		backends = append(backends, ip+":5353")
	}
	slices.Sort(backends)
	const addr = "198.51.100.7"
	s := outside(addr+":53", datapath.UDP, backends...)
	s.Maglev = true
	w.replace(0, s)
	w.replace(1, s)
	via := func(node int) {
		t.Helper()
		err := w.client.Do(func() error {
			return netlink.RouteReplace(&netlink.Route{
				Dst: &net.IPNet{IP: net.ParseIP(addr).To4(), Mask: net.CIDRMask(32, 32)}, Gw: net.IPv4(192, 0, 2, byte(node+1)),
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	answers := func(node int) []string {
		t.Helper()
		via(node)
		var out []string
		for port := 40000; port < 40032; port++ {
			var c net.Conn
			err := w.client.Do(func() (err error) {
				c, err = (&net.Dialer{LocalAddr: &net.UDPAddr{Port: port}}).Dial("udp4", addr+":53")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			answer, err := askOn(c)
			c.Close()
			if err != nil {
				t.Fatal(err)
			}
			var pod, client string
			fmt.Sscanf(answer, "%s saw %s", &pod, &client)
			out = append(out, pod)
		}
		return out
	}
	here, there := answers(0), answers(1)
	seen := map[string]bool{}
	for i := range here {
		seen[here[i]] = true
		if here[i] != there[i] {
			t.Errorf("flow %d goes to %s by way of one node, to %s by way of the other", i, here[i], there[i])
		}
	}
	if len(seen) != len(backends) {
		t.Errorf("32 flows reached %d of %d pods", len(seen), len(backends))
	}

	// Another agent finds the table; without it one is written again.
	n := w.nodes[0]
	n.dp.Close()
	w.load(n)
	tables, err := ebpf.LoadPinnedMap(filepath.Join(n.cfg.PinPath, "maps-v2", bpf.UplinkMapMaglev), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tables.Close()
	sets := func() (out []uint32) {
		var set, id uint32
		for it := tables.Iterate(); it.Next(&set, &id); {
			out = append(out, set)
		}
		return out
	}
	before := sets()
	w.replace(0, s)
	if now := sets(); len(before) != 1 || len(now) != 1 || now[0] != before[0] {
		t.Errorf("an agent that wants what is there has tables of sets %v, had %v", now, before)
	}
	if err := tables.Delete(before[0]); err != nil {
		t.Fatal(err)
	}
	if err := n.Do(n.dp.Verify); err != nil {
		t.Fatal(err)
	}
	w.replace(0, s)
	if now := sets(); len(now) != 1 {
		t.Errorf("a table that was lost was not written again: %v", now)
	}
	w.replace(0)
	if now := sets(); len(now) != 0 {
		t.Errorf("tables of sets %v are left", now)
	}
}

// Node ports are reached at the node's own loopback, and a pod's loopback is the pod's.
func TestLoopbackIsTheNodes(t *testing.T) {
	lab := netlab.New(t)
	node, pod := lab.Host(netip.MustParsePrefix("192.0.2.1/24")), lab.Host(netip.MustParsePrefix("192.0.2.2/24"))
	h := &host{Namespace: node, t: t, cfg: datapath.Config{PinPath: filepath.Join(netlab.BPFFS(t), "xebec"), CgroupPath: netlab.JoinCgroup(t)}}
	h.do(func() error { h.load(); return nil })
	t.Cleanup(func() { h.dp.Close(); datapath.Remove(h.cfg.PinPath) })
	serveTCP(t, node, "192.0.2.1:8080", "endpoint")
	serveUDP(t, node, "192.0.2.1:8080", "endpoint")
	serveTCP(t, pod, "127.0.0.1:30080", "the pod's own")
	serveUDP(t, pod, "127.0.0.1:30080", "the pod's own")
	h.replace(service("127.0.0.1:30080", datapath.TCP, "192.0.2.1:8080"), service("127.0.0.1:30080", datapath.UDP, "192.0.2.1:8080"))
	for _, network := range []string{"tcp4", "udp4"} {
		if got, err := ask(node, network, "127.0.0.1:30080"); err != nil || got != "endpoint" {
			t.Errorf("%s from the node: %q, %v", network, got, err)
		}
		if got, err := ask(pod, network, "127.0.0.1:30080"); err != nil || got != "the pod's own" {
			t.Errorf("%s from a pod: %q, %v", network, got, err)
		}
	}
	// A socket that is not connected, both ways.
	err := node.Do(func() error {
		c, err := net.ListenPacket("udp4", "")
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := c.WriteTo([]byte("who\n"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 30080}); err != nil {
			return err
		}
		buf := make([]byte, 64)
		_, from, err := c.ReadFrom(buf)
		if err == nil && from.String() != "127.0.0.1:30080" {
			err = fmt.Errorf("answered by %v", from)
		}
		return err
	})
	if err != nil && err != io.EOF {
		t.Errorf("datagrams: %v", err)
	}
}
