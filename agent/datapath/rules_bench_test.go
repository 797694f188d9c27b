package datapath_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/datapath"
)

// shapes are how new connections to services are led to an endpoint, beside not at all: by the
// maps, and by rules of the shape that kube-proxy writes. Each has addresses of its own, so that
// one does not see the other's.
var shapes = []struct {
	name    string
	network byte // services are 10.network.x.y
	set     func(h *host, n int) error
}{
	{"cluster-ip", 96, func(h *host, n int) error {
		var services []datapath.Service
		for i := range n {
			services = append(services, service(netip.AddrPortFrom(vip(96, i), 80).String(), datapath.TCP, "127.0.0.2:8080"))
		}
		return h.dp.Replace(services)
	}},
	{"iptables", 97, func(_ *host, n int) error { return pipe(iptablesRules(97, n), "iptables-restore") }},
	{"nft", 98, func(_ *host, n int) error {
		// Rules of iptables stay in the way of all connections until they are gone.
		if err := pipe("*nat\nCOMMIT\n", "iptables-restore"); err != nil {
			return err
		}
		return pipe(nftRules(98, n), "nft", "-f", "-")
	}},
}

func vip(network byte, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, network, byte(i >> 8), byte(i)})
}

// pipe runs a program in the network namespace of the calling thread.
func pipe(input, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out))
	}
	return nil
}

// iptablesRules is a chain of all services, and a chain for each of them and for its endpoint.
func iptablesRules(network byte, n int) string {
	var chains, rules strings.Builder
	for i := range n {
		fmt.Fprintf(&chains, ":SVC-%d - [0:0]\n:SEP-%d - [0:0]\n", i, i)
		fmt.Fprintf(&rules, "-A SERVICES -d %s/32 -p tcp -m tcp --dport 80 -j SVC-%d\n-A SVC-%d -j SEP-%d\n-A SEP-%d -p tcp -m tcp -j DNAT --to-destination 127.0.0.2:8080\n",
			vip(network, i), i, i, i, i)
	}
	return "*nat\n:SERVICES - [0:0]\n" + chains.String() + "-A OUTPUT -j SERVICES\n" + rules.String() + "COMMIT\n"
}

// nftRules is a map from addresses to chains, and a chain for each service and for its endpoint.
func nftRules(network byte, n int) string {
	var chains, elements strings.Builder
	for i := range n {
		fmt.Fprintf(&chains, "chain sep-%d { meta l4proto tcp dnat to 127.0.0.2:8080\n}\nchain svc-%d { numgen random mod 1 vmap { 0 : goto sep-%d }\n}\n", i, i, i)
		fmt.Fprintf(&elements, "%s . tcp . 80 : goto svc-%d,\n", vip(network, i), i)
	}
	return "table ip proxy {\n" + chains.String() +
		"map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = {\n" + elements.String() + "} }\n" +
		"chain output { type nat hook output priority -100; ip daddr . meta l4proto . tcp dport vmap @services\n}\n}\n"
}

// BenchmarkConnectScale makes TCP connections to one endpoint directly and by a service among n,
// with each of the shapes one after the other on the same host. For each it reports connections per
// second of one client and the 99th percentile of how long one takes. A shape whose program is
// missing, which hack/deps.sh bench installs, is left out.
func BenchmarkConnectScale(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) { connectScale(b, n) })
	}
}

func connectScale(b *testing.B, n int) {
	const connections = 3000
	h := newHost(b)
	var l net.Listener
	h.do(func() (err error) {
		if l, err = net.Listen("tcp4", "127.0.0.2:8080"); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		// So that there is a way to addresses that rules translate.
		for _, s := range shapes[1:] {
			dst := &net.IPNet{IP: net.IPv4(10, s.network, 0, 0), Mask: net.CIDRMask(16, 32)}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}); err != nil {
				return err
			}
		}
		return nil
	})
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	h.do(func() error {
		measure := func(name string, to *unix.SockaddrInet4) error {
			var took []time.Duration
			for range connections {
				began := time.Now()
				if err := connectOnce(to); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(time.Second)/float64(took[len(took)/2]), name+"/s")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, name+"-p99-us")
			return nil
		}
		for b.Loop() {
			if err := measure("direct", &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}, Port: 8080}); err != nil {
				return err
			}
			for _, s := range shapes {
				began := time.Now()
				if err := s.set(h, n); err != nil {
					b.Logf("%s is left out: %v", s.name, err)
					continue
				}
				b.Logf("%s programmed in %v", s.name, time.Since(began))
				if err := measure(s.name, &unix.SockaddrInet4{Addr: vip(s.network, n/2).As4(), Port: 80}); err != nil {
					return err
				}
			}
			if err := pipe("*nat\nCOMMIT\n", "iptables-restore"); err != nil {
				b.Log(err)
			}
			if err := pipe("table ip proxy\ndelete table ip proxy\n", "nft", "-f", "-"); err != nil {
				b.Log(err)
			}
		}
		return nil
	})
}
