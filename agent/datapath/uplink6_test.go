package datapath_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/netlab"
)

func TestNodePortsByIPv6(t *testing.T) { testNodePorts(t, ends6, dualStack) }

func TestNodePortsByIPv6AndClassicTC(t *testing.T) { testNodePorts(t, ends6, dualStack, classicTC) }

// Both families are served side by side.
func TestNodePortsOfADualStackNode(t *testing.T) { testNodePorts(t, ends4, dualStack) }

// What pods send to the outside by IPv6 comes from their node, what they send to pods and nodes
// from themselves.
func TestMasqueradeByIPv6(t *testing.T) {
	w := newWire(t, dualStack)
	pod, ip := w.pod6(0, "pod")
	_, there := w.pod6(1, "there")
	serveSeen(t, w.client, clientIP6)
	serveSeen(t, w.nodes[1].Namespace, ends6.other)
	for network, port := range map[string]int{"tcp6": 8080, "udp6": 5353} {
		for range 3 {
			w.expect(pod, network, hostPort(clientIP6, port), clientIP6+" saw "+ends6.self)
		}
		w.expect(pod, network, hostPort(there, port), there+" saw "+ip)
		w.expect(pod, network, hostPort(ends6.other, port), ends6.other+" saw "+ip)
		w.expect(w.nodes[0].Namespace, network, hostPort(clientIP6, port), clientIP6+" saw "+ends6.self)
	}
	if err := pod.Do(func() error { return ping6(clientIP6) }); err != nil {
		t.Errorf("pinging the outside: %v", err)
	}
	// Who has a route to the pods reaches them by their own addresses.
	w.routeNetwork(w.client, w.nodes[0].cfg.PodCIDR6, ends6.self)
	for network, port := range map[string]int{"tcp6": 8080, "udp6": 5353} {
		w.expect(w.client, network, hostPort(ip, port), ip+" saw "+clientIP6)
	}
	flows, err := w.nodes[0].dp.Flows()
	if err != nil {
		t.Fatal(err)
	}
	out := slices.IndexFunc(flows, func(f datapath.Flow) bool {
		return f.Direction == "out" && f.Source.Addr().String() == ip && f.Destination.String() == hostPort(clientIP6, 8080) && f.TranslatedSource.Addr().String() == ends6.self
	})
	if out < 0 {
		t.Errorf("the table of flows lacks what a pod sent: %v", flows)
	}
}

// A client keeps its endpoint by its IPv6 address, or by Maglev's table; ranges of clients are
// looked at.
func TestChoiceByIPv6(t *testing.T) {
	w := newWire(t, dualStack)
	sticky := outside(hostPort(ends6.self, 30080), datapath.TCP)
	sticky.Affinity = time.Hour
	for i := range 4 {
		_, ip := w.pod6(i%2, string(rune('a'+i)))
		sticky.Backends = append(sticky.Backends, netip.MustParseAddrPort(hostPort(ip, 8080)))
	}
	slices.SortFunc(sticky.Backends, netip.AddrPort.Compare)
	maglev, ranged, elsewhere := sticky, sticky, sticky
	maglev.Frontend.AddrPort, maglev.Affinity, maglev.Maglev = netip.MustParseAddrPort(hostPort(ends6.self, 30081)), 0, true
	ranged.Frontend.AddrPort, ranged.Sources = netip.MustParseAddrPort(hostPort(ends6.self, 30082)), []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}
	elsewhere.Frontend.AddrPort, elsewhere.Sources = netip.MustParseAddrPort(hostPort(ends6.self, 30083)), []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}
	w.replace(0, sticky, maglev, ranged, elsewhere)

	endpoints := func(port int) map[string]int {
		got := map[string]int{}
		for range 40 {
			answer, err := ask(w.client, "tcp6", hostPort(ends6.self, port))
			if err != nil {
				t.Fatalf("port %d: %v", port, err)
			}
			endpoint, _, _ := strings.Cut(answer, " ")
			got[endpoint]++
		}
		return got
	}
	if got := endpoints(30080); len(got) != 1 {
		t.Errorf("a client that is to stay reached %v", got)
	}
	if got := endpoints(30081); len(got) < 2 {
		t.Errorf("40 flows were sent to %v only", got)
	}
	endpoints(30082)
	if _, err := askBriefly(w.client, "tcp6", hostPort(ends6.self, 30083)); err == nil {
		t.Error("a client of another range is served")
	}
	list, err := w.nodes[0].dp.Dump()
	if err != nil || len(list) != 4 || !slices.Equal(list[2].Sources, ranged.Sources) || !list[1].Maglev {
		t.Errorf("the maps hold %v, %v", list, err)
	}
}

// ping6 is ping by IPv6; the kernel fills the checksum in.
func ping6(to string) error { return pingBy("ip6:ipv6-icmp", 128, 129, to) }

// A pod that only the overlay leads to is reached through it, from the node's IPv6 address there.
func TestNodePortsByIPv6ThroughOverlay(t *testing.T) {
	lab := netlab.New(t)
	lab.Segments(netip.MustParsePrefix("192.0.2.254/24"), netip.MustParsePrefix("203.0.113.254/24"))
	w := newWireOf(t, lab, []string{"192.0.2.1", "203.0.113.1"}, podnet.OverlayAuto, dualStack)
	_, there := w.pod6(1, "there")
	w.replace(0, outside(hostPort(ends6.self, 30080), datapath.TCP, hostPort(there, 8080)), outside(hostPort(ends6.self, 30080), datapath.UDP, hostPort(there, 5353)))
	for _, network := range []string{"tcp6", "udp6"} {
		for range 3 {
			w.expect(w.client, network, hostPort(ends6.self, 30080), there+" saw "+w.nodes[0].cfg.OverlayIP6.String())
		}
	}
	if !t.Failed() {
		w.transfer(hostPort(ends6.self, 30080))
	}
}
