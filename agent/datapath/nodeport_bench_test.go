package datapath_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xebec-project/xebec/agent/datapath"
)

const (
	// mapsPort and rulesPort begin the node ports by the maps and by rules. A client that used a port
	// of its own for both would be taken for one whose connection goes on.
	mapsPort  = 30000
	rulesPort = 31000
	// mostNodePorts is how many of a benchmark's services have a node port at most.
	mostNodePorts = 1000
)

// ported is n services with cluster IPs, of which the first have node ports. Those in their middle
// lead to a pod on the node that is asked and to one on another; all others lead to pods that are
// not there.
type ported struct {
	n           int
	node        string
	here, there string
}

func (p ported) ports() int { return min(p.n, mostNodePorts) }

// local and remote are the services that are called.
func (p ported) local() int  { return p.ports() / 2 }
func (p ported) remote() int { return p.ports()/2 + 1 }

func (p ported) backend(i int) string {
	switch i {
	case p.local():
		return p.here + ":8080"
	case p.remote():
		return p.there + ":8080"
	}
	return "10.244.9.9:8080"
}

func (p ported) address(first, i int) string { return fmt.Sprintf("%s:%d", p.node, first+i) }

func (p ported) services() []datapath.Service {
	var services []datapath.Service
	for i := range p.n {
		services = append(services, service(netip.AddrPortFrom(vip(96, i), 80).String(), datapath.TCP, p.backend(i)))
		if i < p.ports() {
			services = append(services, outside(p.address(mapsPort, i), datapath.TCP, p.backend(i)))
		}
	}
	return services
}

// iptables is a chain of all cluster IPs, which ends in one of all node ports, a chain for each
// service, for its calls from outside and for its endpoint, and the masquerading of what came by a
// node port.
func (p ported) iptables() string {
	var chains, clusterIPs, nodePorts, rules strings.Builder
	for i := range p.n {
		fmt.Fprintf(&chains, ":SVC-%d - [0:0]\n:SEP-%d - [0:0]\n", i, i)
		fmt.Fprintf(&clusterIPs, "-A SERVICES -d %s/32 -p tcp -m tcp --dport 80 -j SVC-%d\n", vip(97, i), i)
		fmt.Fprintf(&rules, "-A SVC-%d -j SEP-%d\n-A SEP-%d -p tcp -m tcp -j DNAT --to-destination %s\n", i, i, i, p.backend(i))
		if i < p.ports() {
			fmt.Fprintf(&chains, ":EXT-%d - [0:0]\n", i)
			fmt.Fprintf(&nodePorts, "-A NODEPORTS -p tcp -m tcp --dport %d -j EXT-%d\n", rulesPort+i, i)
			fmt.Fprintf(&rules, "-A EXT-%d -j MARK --or-mark 0x4000\n-A EXT-%d -j SVC-%d\n", i, i, i)
		}
	}
	return "*nat\n:SERVICES - [0:0]\n:NODEPORTS - [0:0]\n" + chains.String() + "-A PREROUTING -j SERVICES\n" + clusterIPs.String() +
		"-A SERVICES -m addrtype --dst-type LOCAL -j NODEPORTS\n" + nodePorts.String() + rules.String() +
		"-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\nCOMMIT\n"
}

// nft is a map from cluster IPs to chains and one from node ports, and chains as those of iptables.
func (p ported) nft() string {
	var chains, clusterIPs, nodePorts strings.Builder
	for i := range p.n {
		fmt.Fprintf(&chains, "chain sep-%d { meta l4proto tcp dnat to %s\n}\nchain svc-%d { numgen random mod 1 vmap { 0 : goto sep-%d }\n}\n", i, p.backend(i), i, i)
		fmt.Fprintf(&clusterIPs, "%s . tcp . 80 : goto svc-%d,\n", vip(98, i), i)
		if i < p.ports() {
			fmt.Fprintf(&chains, "chain ext-%d { meta mark set meta mark or 0x4000\ngoto svc-%d\n}\n", i, i)
			fmt.Fprintf(&nodePorts, "tcp . %d : goto ext-%d,\n", rulesPort+i, i)
		}
	}
	return "table ip proxy {\n" + chains.String() +
		"map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = {\n" + clusterIPs.String() + "} }\n" +
		"map nodeports { type inet_proto . inet_service : verdict; elements = {\n" + nodePorts.String() + "} }\n" +
		"chain prerouting { type nat hook prerouting priority -100; ip daddr . meta l4proto . tcp dport vmap @services\n" +
		"fib daddr type local meta l4proto . tcp dport vmap @nodeports\n}\n" +
		"chain postrouting { type nat hook postrouting priority 100; meta mark & 0x4000 == 0x4000 masquerade\n}\n}\n"
}

// BenchmarkNodePortScale has a machine outside of the cluster call pods, each time on a new
// connection: a pod by its own address, one on the node by a node port and one on another node by
// another, among n services, with the maps and with rules of kube-proxy's shape, one after the
// other on the same machines. For each it reports calls per second of one client and the 99th
// percentile of how long one takes. A shape whose program is missing, which hack/deps.sh bench
// installs, is left out.
func BenchmarkNodePortScale(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) { nodePortScale(b, n) })
	}
}

func nodePortScale(b *testing.B, n int) {
	w := newWire(b)
	_, direct := w.pod(0, "direct")
	_, here := w.pod(0, "here")
	_, there := w.pod(1, "there")
	node := w.nodes[0]
	p := ported{n: n, node: node.cfg.NodeIP.String(), here: here, there: there}
	// The direct way leads over the nodes' routes, as those to other nodes' pods do.
	err := w.client.Do(func() error {
		for i, n := range w.nodes {
			route := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 244, byte(i), 0), Mask: net.CIDRMask(24, 32)}, Gw: n.cfg.NodeIP.AsSlice()}
			if err := netlink.RouteAdd(route); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	shapes := []struct {
		name  string
		first int
		set   func() error
	}{
		{"maps", mapsPort, func() error { return node.dp.Replace(p.services()) }},
		{"iptables", rulesPort, func() error {
			if err := node.dp.Replace(nil); err != nil {
				return err
			}
			return pipe(p.iptables(), "iptables-restore")
		}},
		{"nft", rulesPort, func() error {
			if err := pipe("*nat\nCOMMIT\n", "iptables-restore"); err != nil {
				return err
			}
			return pipe(p.nft(), "nft", "-f", "-")
		}},
	}
	for b.Loop() {
		calls(b, w, "direct", direct+":8080", direct)
		for _, s := range shapes {
			began := time.Now()
			if err := node.Do(s.set); err != nil {
				b.Logf("%s is left out: %v", s.name, err)
				continue
			}
			b.Logf("%s programmed in %v", s.name, time.Since(began))
			calls(b, w, s.name+"-local", p.address(s.first, p.local()), here)
			calls(b, w, s.name+"-remote", p.address(s.first, p.remote()), there)
		}
		if err := node.Do(func() error { return pipe("table ip proxy\ndelete table ip proxy\n", "nft", "-f", "-") }); err != nil {
			b.Log(err)
		}
	}
}

// calls asks a pod at an address many times, and reports by name how that went.
func calls(b *testing.B, w *wire, name, address, pod string) {
	const questions = 2000
	took := make([]time.Duration, 0, questions)
	began := time.Now()
	err := w.client.Do(func() error {
		for range questions {
			began := time.Now()
			c, err := net.DialTimeout("tcp4", address, 3*time.Second)
			if err != nil {
				return err
			}
			answer, err := askOn(c)
			// No TIME_WAIT: the ports would run out.
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
			if err != nil {
				return err
			}
			if !strings.HasPrefix(answer, pod+" saw ") {
				return fmt.Errorf("%s answered %q, not %s", address, answer, pod)
			}
			took = append(took, time.Since(began))
		}
		return nil
	})
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	b.ReportMetric(questions/time.Since(began).Seconds(), name+"/s")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, name+"-p99-us")
}
