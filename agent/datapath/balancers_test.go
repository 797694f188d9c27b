package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func newBalancer(name, ip string, change ...func(*corev1.Service)) *corev1.Service {
	s := newService(name, spec("10.96.0.9", func(s *corev1.ServiceSpec) { s.Type = "LoadBalancer" }))
	s.Status = &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: []*corev1.LoadBalancerIngress{{Ip: ip, IpMode: ptr("VIP")}}}}
	for _, f := range change {
		f(s)
	}
	return s
}

func localOnly(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "Local", 31000
}

func TestAnnouncers(t *testing.T) {
	node := func(name, ready string, labels ...string) *corev1.Node {
		n := &corev1.Node{
			Metadata: &metav1.ObjectMeta{Name: name, Labels: map[string]string{}},
			Status:   &corev1.NodeStatus{Conditions: []*corev1.NodeCondition{{Type: "Ready", Status: ready}}},
		}
		for _, l := range labels {
			n.Metadata.Labels[l] = ""
		}
		return n
	}
	six := func(n *corev1.Node) *corev1.Node {
		n.Status.Addresses = []*corev1.NodeAddress{{Type: "InternalIP", Address: "192.0.2.1"}, {Type: "InternalIP", Address: "2001:db8::1"}}
		return n
	}
	for name, c := range map[string]struct {
		nodes     []*corev1.Node
		four, six []string
	}{
		"ready ones":              {[]*corev1.Node{node("c", "True"), node("b", "Unknown"), node("a", "True")}, []string{"a", "c"}, nil},
		"some have IPv6":          {[]*corev1.Node{six(node("c", "True")), node("b", "True"), six(node("a", "Unknown"))}, []string{"b", "c"}, []string{"c"}},
		"none with IPv6 is ready": {[]*corev1.Node{node("b", "True"), six(node("a", "Unknown"))}, []string{"b"}, []string{"a"}},
		"none is ready":           {[]*corev1.Node{node("b", "Unknown"), node("a", "False")}, []string{"a", "b"}, nil},
		"one excluded":            {[]*corev1.Node{six(node("b", "True")), six(node("a", "True", excludeLabel))}, []string{"b"}, []string{"b"}},
		"the ready one excluded":  {[]*corev1.Node{node("b", "False"), node("a", "True", excludeLabel)}, []string{"b"}, nil},
		"there are none":          {nil, nil, nil},
	} {
		got := NewAnnouncers(slices.Values(c.nodes))
		if !slices.Equal(got.nodes.four, c.four) || !slices.Equal(got.nodes.six, c.six) {
			t.Errorf("%s: %v, want %v and %v", name, got, c.four, c.six)
		}
		if !got.Equal(announcers(c.four, c.six)) || got.Equal(nil) || got.Equal(announcers(c.four, []string{"x"})) || got.Equal(announcers([]string{"x"}, c.six)) {
			t.Errorf("%s: %v is equal to others, or not to itself", name, got)
		}
	}
}

func announcers(four, six []string) *Announcers { return &Announcers{byFamily{four, six}} }

// Exactly one node answers for each address, and the loss of one moves no address of others.
func TestElection(t *testing.T) {
	nodes := []string{"a", "b", "c", "d"}
	for _, pool := range []string{"192.0.2.0", "2001:db8::100"} {
		shares := map[string]int{}
		addr := netip.MustParseAddr(pool)
		for range 200 {
			before := elect(addr, nodes)
			shares[before]++
			for gone := range nodes {
				left := slices.Delete(slices.Clone(nodes), gone, gone+1)
				if now := elect(addr, left); before != nodes[gone] && now != before {
					t.Errorf("%v went from %s to %s when %s was lost", addr, before, now, nodes[gone])
				}
			}
			addr = addr.Next()
		}
		for _, n := range nodes {
			if shares[n] < 20 {
				t.Errorf("of 200 addresses from %s on %s answers for %d", pool, n, shares[n])
			}
		}
	}
	if got := elect(netip.MustParseAddr("192.0.2.1"), nil); got != "" {
		t.Errorf("%q announces an address that no node may announce", got)
	}
}

func TestBalancers(t *testing.T) {
	table := NewTable("me", netip.MustParseAddr("192.0.2.1"))
	table.AnnounceClass(DefaultClass)
	check := func(what, want string) {
		t.Helper()
		table.Flush()
		mine, checks, changed := table.Balancers()
		got := "unchanged"
		if changed {
			got = fmt.Sprint(mine)
			for _, c := range checks {
				got += fmt.Sprintf(" %d:%s/%s=%d", c.Port, c.Namespace, c.Name, c.Endpoints)
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	table.OnService(nil, newBalancer("a", "198.51.100.1"))
	check("before the nodes are known", "unchanged")
	table.SetAnnouncers(announcers([]string{"me"}, nil))
	check("the only node", "[198.51.100.1]")
	check("nothing new", "unchanged")
	table.OnService(nil, newService("plain", spec("10.96.0.1")))
	check("a service of another type", "unchanged")
	table.OnService(nil, newBalancer("proxied", "198.51.100.2", func(s *corev1.Service) { s.Status.LoadBalancer.Ingress[0].IpMode = ptr("Proxy") }))
	table.OnService(nil, newBalancer("others", "198.51.100.3", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr("example.com/lb") }))
	table.OnService(nil, newBalancer("ours", "198.51.100.4", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr(DefaultClass) }))
	check("proxies and other classes are others' to announce", "[198.51.100.1 198.51.100.4]")

	table.OnService(nil, newBalancer("local", "198.51.100.5", localOnly))
	check("without an endpoint", "[198.51.100.1 198.51.100.4] 31000:ns/local=0")
	here := newSlice("s", "local", 8080, "10.244.0.1 rs me", "10.244.0.2 rs me", "10.244.0.3 st me", "10.244.1.1 rs other")
	table.OnEndpointSlice(nil, here)
	check("with endpoints", "[198.51.100.1 198.51.100.4 198.51.100.5] 31000:ns/local=2")
	there := newSlice("s", "local", 8080, "10.244.0.3 st me", "10.244.1.1 rs other")
	table.OnEndpointSlice(here, there)
	check("one that drains is not worth new connections", "[198.51.100.1 198.51.100.4] 31000:ns/local=0")
	if got := table.Announcer(netip.MustParseAddr("198.51.100.5")); got != "" {
		t.Errorf("%q answers, and only a node that is not ready has endpoints", got)
	}
	table.SetAnnouncers(announcers([]string{"me", "other"}, nil))
	if got := table.Announcer(netip.MustParseAddr("198.51.100.5")); got != "other" {
		t.Errorf("%q answers, want the node with endpoints", got)
	}
	table.SetAnnouncers(announcers([]string{"other"}, nil))
	check("this node is not ready", "[] 31000:ns/local=0")
	svc := newBalancer("local", "198.51.100.5", localOnly)
	changed := proto.CloneOf(svc)
	changed.Spec.Type, changed.Spec.HealthCheckNodePort = "ClusterIP", 0
	table.OnService(svc, changed)
	check("no load balancer any more", "[]")
}

// A service of both families has an address of each, which different nodes may answer for.
func TestBalancersOfBothFamilies(t *testing.T) {
	table := NewTable("me", netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
	table.AnnounceClass(DefaultClass)
	four, six := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:7::1")
	both := func(s *corev1.Service) {
		s.Spec.IpFamilies = []string{"IPv4", "IPv6"}
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, &corev1.LoadBalancerIngress{Ip: six.String(), IpMode: ptr("VIP")})
	}
	check := func(what, want4, want6 string, endpoints int) {
		t.Helper()
		table.Flush()
		mine, checks, _ := table.Balancers()
		if got4, got6 := table.Announcer(four), table.Announcer(six); got4 != want4 || got6 != want6 {
			t.Errorf("%s: %q answers by IPv4, %q by IPv6; want %q, %q", what, got4, got6, want4, want6)
		}
		if slices.Contains(mine, four) != (want4 == "me") || slices.Contains(mine, six) != (want6 == "me") {
			t.Errorf("%s: this node answers for %v", what, mine)
		}
		if len(checks) != 1 || checks[0].Endpoints != endpoints {
			t.Errorf("%s: health is %v, want %d endpoints", what, checks, endpoints)
		}
	}
	table.OnService(nil, newBalancer("svc", four.String(), both, localOnly))
	table.OnEndpointSlice(nil, newSlice("s4", "svc", 8080, "10.244.0.1 rs me", "10.244.0.2 rs me", "10.244.1.1 rs other"))
	table.OnEndpointSlice(nil, newSlice6("s6", "svc", 8080, "fd00:10:244::1 rs me", "fd00:10:244::2 rs me"))
	table.SetAnnouncers(announcers([]string{"other"}, []string{"me", "other"}))
	check("pods of both families are counted once", "other", "me", 2)
	table.SetAnnouncers(announcers([]string{"me"}, nil))
	check("no node has an IPv6 address", "me", "", 2)

	keptLocal := map[string]bool{}
	for s := range table.All() {
		if s.Frontend.Outside {
			keptLocal[s.Frontend.Addr().String()] = len(s.Backends) == 2 && s.Backends[0].Addr().Is6() == s.Frontend.Addr().Is6()
		}
	}
	if !keptLocal[four.String()] || !keptLocal[six.String()] {
		t.Errorf("each address leads to this node's two endpoints of its family: %v", keptLocal)
	}
}

func TestLoadBalancersInTheMaps(t *testing.T) {
	flags := func(change ...func(*corev1.Service)) []string {
		table := NewTable("me", netip.MustParseAddr("192.0.2.1"))
		svc := newBalancer("svc", "198.51.100.1", change...)
		svc.Spec.ExternalIps = []string{"203.0.113.9", "198.51.100.1"}
		svc.Spec.Ports[0].NodePort = 30080
		table.OnService(nil, svc)
		table.Flush()
		var out []string
		for s := range table.All() {
			text := s.Frontend.AddrPort.String()
			if s.Frontend.Outside {
				text += " from outside"
			}
			if s.Maglev {
				text += " maglev"
			}
			if len(s.Sources) > 0 {
				text += fmt.Sprint(" ", s.Sources)
			}
			out = append(out, text)
		}
		slices.Sort(out)
		return out
	}
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%q, want\n%q", what, got, want)
		}
	}
	expect("plain", flags(), "10.96.0.9:80", "127.0.0.1:30080", "192.0.2.1:30080", "192.0.2.1:30080 from outside",
		"198.51.100.1:80", "198.51.100.1:80 from outside", "203.0.113.9:80", "203.0.113.9:80 from outside")
	ranges := func(list ...string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = list }
	}
	maglev := func(s *corev1.Service) { s.Metadata.Annotations = map[string]string{selectionAnnotation: "maglev"} }
	expect("for some, by table", flags(ranges("10.2.3.4/8", " 192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32"), maglev),
		"10.96.0.9:80", "127.0.0.1:30080", "192.0.2.1:30080", "192.0.2.1:30080 from outside maglev",
		"198.51.100.1:80", "198.51.100.1:80 from outside maglev [10.0.0.0/8 192.0.2.0/24]", "203.0.113.9:80", "203.0.113.9:80 from outside maglev")
	for what, list := range map[string][]string{"for all after all": {"10.0.0.0/8", "0.0.0.0/0"}} {
		if got := flags(ranges(list...)); slices.ContainsFunc(got, func(s string) bool { return s == "198.51.100.1:80 from outside [0.0.0.0/0]" }) {
			t.Errorf("%s: %q", what, got)
		}
	}
	if got := flags(ranges("2001:db8::/32")); !slices.Contains(got, "198.51.100.1:80 from outside [127.0.0.1/32]") {
		t.Errorf("ranges of IPv6 only leave an IPv4 address open: %q", got)
	}
}

func TestMaglevByConfiguration(t *testing.T) {
	for annotation, want := range map[string]bool{"": true, "random": false, "maglev": true, "nonsense": true} {
		table := NewTable("me", netip.MustParseAddr("192.0.2.1"))
		table.PreferMaglev()
		table.OnService(nil, newBalancer("svc", "198.51.100.1", func(s *corev1.Service) {
			s.Metadata.Annotations = map[string]string{selectionAnnotation: annotation}
		}))
		table.Flush()
		for s := range table.All() {
			if s.Maglev != (want && s.Frontend.Outside) {
				t.Errorf("annotated %q: %v is spread by table: %v", annotation, s.Frontend, s.Maglev)
			}
		}
	}
}

// Addresses are announced once the maps have them, renewed, and withdrawn.
func TestSyncerAnnounces(t *testing.T) {
	f := &fakeDatapath{}
	runSyncer(t, f, func(t *testing.T, s *Syncer) {
		s.table.AnnounceClass(DefaultClass)
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if got, _ := f.announced(); got != want {
				t.Errorf("the node answers for %s, want %s", got, want)
			}
		}
		svc := newBalancer("svc", "198.51.100.1")
		s.OnService(nil, svc)
		s.SetAnnouncers(announcers([]string{"me"}, nil))
		<-time.After(announceFor)
		expect("[]")
		if _, renewals := f.announced(); renewals < 4 {
			t.Errorf("before all is known, what an earlier agent announced was renewed %d times", renewals)
		}
		s.Synced()
		expect("[198.51.100.1]")
		_, before := f.announced()
		<-time.After(3 * announceEvery)
		synctest.Wait()
		if _, now := f.announced(); now-before < 2 {
			t.Errorf("renewed %d times in %v", now-before, 3*announceEvery)
		}
		s.SetAnnouncers(announcers([]string{"other"}, nil))
		expect("[]")
		s.SetAnnouncers(announcers([]string{"me", "other"}, nil))
		s.OnService(svc, nil)
		expect("[]")
	})
}
