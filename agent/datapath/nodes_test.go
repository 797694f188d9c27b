package datapath_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/dns"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/netlab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// cluster is two nodes as their agents make them: pod networks with routes between them, the
// datapath with a Syncer, a DNS server on each.
type cluster struct {
	t      *testing.T
	lab    *netlab.Lab
	nodes  []*podnet.Network
	syncer *datapath.Syncer
	dp     *datapath.Datapath
	zones  []*dns.Records
}

var clusterDNS = netip.MustParseAddrPort("10.96.0.10:53")

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, lab: netlab.New(t)}
	dp, err := datapath.Load(datapath.Config{PinPath: filepath.Join(netlab.BPFFS(t), "xebec"), CgroupPath: netlab.JoinCgroup(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dp.Close() })
	c.dp, c.syncer = dp, datapath.NewSyncer("node-1", dp, zap.NewNop())
	c.run(c.syncer.Run)

	var routes []podnet.NodeRoute
	for i := range byte(2) {
		host := c.lab.Host(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, i + 1}), 24))
		cfg := podnet.Config{
			PodCIDR:     netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, i, 0}), 24),
			ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
			ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
			NodeIP:      netip.AddrFrom4([4]byte{192, 0, 2, i + 1}),
			DNSIP:       clusterDNS.Addr(),
			StateDir:    t.TempDir(),
		}
		routes = append(routes, podnet.NodeRoute{PodCIDR: cfg.PodCIDR, NodeIP: cfg.NodeIP})
		zone := dns.NewRecords()
		server, err := dns.New(dns.Config{Domain: "cluster.local", Address: clusterDNS}, zone, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		err = host.Do(func() error {
			n, err := podnet.New(cfg)
			if err != nil {
				return err
			}
			c.nodes = append(c.nodes, n)
			udp, tcp, err := dns.Bind(t.Context(), clusterDNS)
			if err != nil {
				return err
			}
			defer udp.Close()
			defer tcp.Close()
			return server.Adopt(udp, tcp)
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.nodes[i].Close() })
		c.run(server.Serve)
		c.zones = append(c.zones, zone)
	}
	for _, n := range c.nodes {
		if err := n.SetNodes(routes); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// run runs a part of the agent until the test ends.
func (c *cluster) run(part func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	c.t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			c.t.Errorf("a part of the agent ended: %v", err)
		}
	})
}

func (c *cluster) pod(node int, name string) (*netlab.Namespace, string) {
	c.t.Helper()
	ns := c.lab.Namespace()
	result, err := c.nodes[node].Setup(c.t.Context(), name, ns.Path())
	if err != nil {
		c.t.Fatal(err)
	}
	return ns, result.IP.String()
}

func (c *cluster) service(name, ip string) {
	svc := &corev1.Service{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: &corev1.ServiceSpec{ClusterIp: ip, Ports: []*corev1.ServicePort{
			{Name: "tcp", Port: 80}, {Name: "udp", Port: 53, Protocol: "UDP"},
		}},
	}
	c.syncer.OnService(nil, svc)
	for _, z := range c.zones {
		z.OnService(nil, svc)
	}
}

func (c *cluster) endpoints(old *discoveryv1.EndpointSlice, service string, ips ...string) *discoveryv1.EndpointSlice {
	text := func(s string) *string { return &s }
	number := func(n int32) *int32 { return &n }
	now := &discoveryv1.EndpointSlice{
		Metadata: &metav1.ObjectMeta{
			Namespace: "default", Name: service + "-x", Labels: map[string]string{"kubernetes.io/service-name": service},
		},
		AddressType: "IPv4",
		Ports: []*discoveryv1.EndpointPort{
			{Name: text("tcp"), Port: number(8080), Protocol: text("TCP")},
			{Name: text("udp"), Port: number(5353), Protocol: text("UDP")},
		},
	}
	for _, ip := range ips {
		now.Endpoints = append(now.Endpoints, &discoveryv1.Endpoint{Addresses: []string{ip}})
	}
	c.syncer.OnEndpointSlice(old, now)
	for _, z := range c.zones {
		z.OnEndpointSlice(old, now)
	}
	return now
}

func (c *cluster) synced() {
	c.syncer.Synced()
	for _, z := range c.zones {
		z.Synced()
	}
}

// settle waits until the maps hold what is wanted.
func (c *cluster) settle() {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		entries, err := c.syncer.Entries()
		if err != nil {
			c.t.Fatal(err)
		}
		settled := len(entries) > 0
		for _, e := range entries {
			settled = settled && e.Programmed && fmt.Sprint(e.Wanted) == fmt.Sprint(e.Actual)
		}
		if settled {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the maps do not settle: %+v", entries)
		}
	}
}

// A client pod finds a service by name and reaches its pods on both nodes; what
// is named but has no pod is refused; pods come and go while clients ask.
func TestTwoNodes(t *testing.T) {
	c := newCluster(t)
	var ips []string
	for i := range 4 {
		ns, ip := c.pod(i%2, fmt.Sprint("server-", i))
		serveTCP(t, ns, ":8080", ip)
		serveUDP(t, ns, ":5353", ip)
		ips = append(ips, ip)
	}
	clients := make([]*netlab.Namespace, 2)
	for i := range clients {
		clients[i], _ = c.pod(i, fmt.Sprint("client-", i))
	}
	c.service("web", "10.96.0.20")
	c.service("empty", "10.96.0.21")
	slice := c.endpoints(nil, "web", ips...)
	c.synced()
	c.settle()

	resolver := &net.Resolver{PreferGo: true}
	for i, client := range clients {
		for _, network := range []string{"udp4", "tcp4"} {
			resolver.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dial(client, network, clusterDNS.String())
			}
			addrs, err := resolver.LookupHost(t.Context(), "web.default.svc.cluster.local.")
			if err != nil || fmt.Sprint(addrs) != "[10.96.0.20]" {
				t.Fatalf("looking web up by %s on node %d: %v, %v", network, i, addrs, err)
			}
		}
		for network, port := range map[string]string{"tcp4": "80", "udp4": "53"} {
			answered := make(map[string]int)
			for range 60 {
				name, err := ask(client, network, "10.96.0.20:"+port)
				if err != nil {
					t.Fatalf("%s from node %d: %v", network, i, err)
				}
				answered[name]++
			}
			if len(answered) != len(ips) {
				t.Errorf("%s from node %d: only %v of %v answered", network, i, answered, ips)
			}
			if _, err := ask(client, network, "10.96.0.21:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s to a service without pods: %v", network, err)
			}
		}
	}

	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	var asking sync.WaitGroup
	for _, client := range clients {
		for network, port := range map[string]string{"tcp4": "80", "udp4": "53"} {
			asking.Go(func() {
				for ctx.Err() == nil {
					if _, err := ask(client, network, "10.96.0.20:"+port); err != nil {
						t.Errorf("%s while pods come and go: %v", network, err)
						return
					}
				}
			})
		}
	}
	for i := 0; ctx.Err() == nil; i++ {
		slice = c.endpoints(slice, "web", ips[i%4], ips[(i+1)%4])
		c.settle()
	}
	asking.Wait()
}
