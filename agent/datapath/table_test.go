package datapath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func ptr[T any](v T) *T { return &v }

func newService(name string, spec *corev1.ServiceSpec) *corev1.Service {
	return &corev1.Service{Metadata: &metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: spec}
}

// newSlice reads endpoints as "address flags [node]", flags being any of
// r(eady), s(erving), t(erminating), or "-" for an endpoint that says nothing.
func newSlice6(name, service string, port int32, endpoints ...string) *discoveryv1.EndpointSlice {
	s := newSlice(name, service, port, endpoints...)
	s.AddressType = "IPv6"
	return s
}

func newSlice(name, service string, port int32, endpoints ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		Metadata:    &metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{serviceNameLabel: service}},
		AddressType: "IPv4",
		Ports:       []*discoveryv1.EndpointPort{{Name: ptr("http"), Port: &port}},
	}
	for _, text := range endpoints {
		f := strings.Fields(text)
		e := &discoveryv1.Endpoint{Addresses: f[:1]}
		if f[1] != "-" {
			has := func(flag string) *bool { return ptr(strings.Contains(f[1], flag)) }
			e.Conditions = &discoveryv1.EndpointConditions{Ready: has("r"), Serving: has("s"), Terminating: has("t")}
		}
		if len(f) > 2 {
			e.NodeName = &f[2]
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func spec(ip string, change ...func(*corev1.ServiceSpec)) *corev1.ServiceSpec {
	s := &corev1.ServiceSpec{ClusterIp: ip, Ports: []*corev1.ServicePort{{Name: "http", Port: 80}}}
	for _, c := range change {
		c(s)
	}
	return s
}

func describe(services []Service) string {
	var lines []string
	for _, s := range services {
		line := fmt.Sprintf("%s %v/%v", s.Name, s.Frontend.AddrPort, s.Frontend.Protocol)
		if s.Frontend.Outside {
			line += " from outside"
		}
		if s.Affinity > 0 {
			line += fmt.Sprintf(" (%v)", s.Affinity)
		}
		lines = append(lines, line+fmt.Sprintf(" -> %v", s.Backends))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestTable(t *testing.T) {
	for name, test := range map[string]struct {
		spec   *corev1.ServiceSpec
		slices []*discoveryv1.EndpointSlice
		want   string
	}{
		"ready endpoints of all slices, sorted, once": {
			spec("10.96.0.1"), []*discoveryv1.EndpointSlice{
				newSlice("b", "svc", 8080, "10.244.1.2 rs", "10.244.0.9 -"),
				newSlice("a", "svc", 8080, "10.244.0.9 rs", "10.244.0.5 s", "10.244.0.6 st"),
			},
			"ns/svc:http 10.96.0.1:80/TCP -> [10.244.0.9:8080 10.244.1.2:8080]",
		},
		"terminating ones while no other serves": {
			spec("10.96.0.1"), []*discoveryv1.EndpointSlice{newSlice("a", "svc", 8080, "10.244.0.5 t", "10.244.0.6 st")},
			"ns/svc:http 10.96.0.1:80/TCP -> [10.244.0.6:8080]",
		},
		"no endpoint": {spec("10.96.0.1"), nil, "ns/svc:http 10.96.0.1:80/TCP -> []"},
		"not ready but published": {
			spec("10.96.0.1", func(s *corev1.ServiceSpec) { s.PublishNotReadyAddresses = true }),
			[]*discoveryv1.EndpointSlice{newSlice("a", "svc", 8080, "10.244.0.5 x")},
			"ns/svc:http 10.96.0.1:80/TCP -> [10.244.0.5:8080]",
		},
		"local traffic only": {
			spec("10.96.0.1", func(s *corev1.ServiceSpec) { s.InternalTrafficPolicy = ptr("Local") }),
			[]*discoveryv1.EndpointSlice{newSlice("a", "svc", 8080, "10.244.0.5 rs me", "10.244.0.6 rs other", "10.244.0.7 rs")},
			"ns/svc:http 10.96.0.1:80/TCP -> [10.244.0.5:8080]",
		},
		"local traffic only, falling back to a local one that terminates": {
			spec("10.96.0.1", func(s *corev1.ServiceSpec) { s.InternalTrafficPolicy = ptr("Local") }),
			[]*discoveryv1.EndpointSlice{newSlice("a", "svc", 8080, "10.244.0.5 st me", "10.244.0.6 rs other")},
			"ns/svc:http 10.96.0.1:80/TCP -> [10.244.0.5:8080]",
		},
		"affinity": {
			spec("10.96.0.1", func(s *corev1.ServiceSpec) { s.SessionAffinity = "ClientIP" }), nil,
			"ns/svc:http 10.96.0.1:80/TCP (3h0m0s) -> []",
		},
		"affinity with a timeout": {
			spec("10.96.0.1", func(s *corev1.ServiceSpec) {
				s.SessionAffinity = "ClientIP"
				s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIp: &corev1.ClientIPConfig{TimeoutSeconds: ptr(int32(60))}}
			}), nil,
			"ns/svc:http 10.96.0.1:80/TCP (1m0s) -> []",
		},
		"ports are distinguished by name and protocol": {
			spec("10.96.0.1", func(s *corev1.ServiceSpec) {
				s.Ports = []*corev1.ServicePort{{Name: "http", Port: 80}, {Name: "dns", Port: 53, Protocol: "UDP"}, {Name: "x", Port: 9, Protocol: "SCTP"}}
			}),
			[]*discoveryv1.EndpointSlice{{
				Metadata:    &metav1.ObjectMeta{Namespace: "ns", Name: "a", Labels: map[string]string{serviceNameLabel: "svc"}},
				AddressType: "IPv4",
				Ports: []*discoveryv1.EndpointPort{
					{Name: ptr("dns"), Port: ptr(int32(5353)), Protocol: ptr("UDP")},
					{Name: ptr("http"), Port: ptr(int32(99)), Protocol: ptr("UDP")},
					{Name: ptr("http"), Port: ptr(int32(8080)), Protocol: ptr("TCP")},
				},
				Endpoints: []*discoveryv1.Endpoint{{Addresses: []string{"10.244.0.5"}}},
			}},
			"ns/svc:dns 10.96.0.1:53/UDP -> [10.244.0.5:5353]\nns/svc:http 10.96.0.1:80/TCP -> [10.244.0.5:8080]",
		},
		"headless":       {spec("None"), []*discoveryv1.EndpointSlice{newSlice("a", "svc", 80, "10.244.0.5 rs")}, ""},
		"external name":  {spec("10.96.0.1", func(s *corev1.ServiceSpec) { s.Type = "ExternalName" }), nil, ""},
		"no address yet": {spec(""), nil, ""},
		"only IPv6": {
			spec("fd00::1"), []*discoveryv1.EndpointSlice{newSlice("a", "svc", 8080, "10.244.0.5 rs"), newSlice6("b", "svc", 8080, "fd00:1::5 rs")},
			"ns/svc:http [fd00::1]:80/TCP -> [[fd00:1::5]:8080]",
		},
		"both families": {
			spec("10.96.0.1", func(s *corev1.ServiceSpec) { s.ClusterIps = []string{"10.96.0.1", "fd00::1"} }),
			[]*discoveryv1.EndpointSlice{newSlice("a", "svc", 8080, "10.244.0.5 rs"), newSlice6("b", "svc", 8080, "fd00:1::5 rs", "10.244.0.6 rs")},
			"ns/svc:http 10.96.0.1:80/TCP -> [10.244.0.5:8080]\nns/svc:http [fd00::1]:80/TCP -> [[fd00:1::5]:8080]",
		},
		"another's slice":        {spec("10.96.0.1"), []*discoveryv1.EndpointSlice{newSlice("a", "other", 80, "10.244.0.5 rs")}, "ns/svc:http 10.96.0.1:80/TCP -> []"},
		"an address of nonsense": {spec("10.96.0.1"), []*discoveryv1.EndpointSlice{newSlice("a", "svc", 80, "x rs", "fd00::2 rs")}, "ns/svc:http 10.96.0.1:80/TCP -> []"},
	} {
		t.Run(name, func(t *testing.T) {
			table := NewTable("me")
			for _, s := range test.slices {
				table.OnEndpointSlice(nil, s)
			}
			table.OnService(nil, newService("svc", test.spec))
			change := table.Flush()
			if got := describe(change.Put); got != test.want || len(change.Delete) != 0 {
				t.Errorf("got\n%s\ndeleted %v\nwant\n%s", got, change.Delete, test.want)
			}
			if got := describe(slices.Collect(table.All())); got != test.want {
				t.Errorf("all is\n%s", got)
			}
			if again := table.Flush(); !again.Empty() {
				t.Errorf("flushing again: %+v", again)
			}
		})
	}
}

func TestAddressesForTheOutside(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*corev1.Service)
		want   []string
	}{
		"a node port": {
			func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = "NodePort", 30080 },
			[]string{"127.0.0.1:30080/TCP -> all", "192.0.2.1:30080/TCP -> all", "192.0.2.1:30080/TCP from outside -> all"},
		},
		"a node port for local traffic": {
			func(s *corev1.Service) {
				s.Spec.Type, s.Spec.Ports[0].NodePort, s.Spec.ExternalTrafficPolicy = "NodePort", 30080, "Local"
			},
			[]string{"127.0.0.1:30080/TCP -> all", "192.0.2.1:30080/TCP -> all", "192.0.2.1:30080/TCP from outside -> here"},
		},
		"an external address": {
			func(s *corev1.Service) {
				s.Spec.ExternalIps = []string{"198.51.100.1", "fd00::1", "nonsense", "198.51.100.1"}
			},
			[]string{"198.51.100.1:80/TCP -> all", "198.51.100.1:80/TCP from outside -> all"},
		},
		"load balancers": {
			func(s *corev1.Service) {
				s.Spec.Type = "LoadBalancer"
				s.Status = &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: []*corev1.LoadBalancerIngress{
					{Ip: "198.51.100.2", IpMode: ptr("VIP")}, {Ip: "198.51.100.3", IpMode: ptr("Proxy")}, {Hostname: "lb"}, {Ip: "198.51.100.4"},
				}}}
			},
			[]string{
				"198.51.100.2:80/TCP -> all", "198.51.100.2:80/TCP from outside -> all",
				"198.51.100.4:80/TCP -> all", "198.51.100.4:80/TCP from outside -> all",
			},
		},
		"what a load balancer was": {
			func(s *corev1.Service) {
				s.Status = &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: []*corev1.LoadBalancerIngress{{Ip: "198.51.100.2"}}}}
			},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			svc := newService("svc", spec("10.96.0.1"))
			test.change(svc)
			table := NewTable("me", netip.MustParseAddr("192.0.2.1"))
			table.OnService(nil, svc)
			table.OnEndpointSlice(nil, newSlice("a", "svc", 8080, "10.244.0.5 rs me", "10.244.0.6 rs other"))
			want := []string{"ns/svc:http 10.96.0.1:80/TCP -> [10.244.0.5:8080 10.244.0.6:8080]"}
			for _, w := range test.want {
				w = strings.Replace(w, "-> all", "-> [10.244.0.5:8080 10.244.0.6:8080]", 1)
				want = append(want, "ns/svc:http "+strings.Replace(w, "-> here", "-> [10.244.0.5:8080]", 1))
			}
			slices.Sort(want)
			if got := describe(table.Flush().Put); got != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
		})
	}
}

// A service has the addresses of the node that are of its families, each with the endpoints of that
// family.
func TestAddressesOfBothFamilies(t *testing.T) {
	for name, test := range map[string]struct {
		families []string
		ips      []string
		want     []string
	}{
		"both": {[]string{"IPv4", "IPv6"}, []string{"10.96.0.1", "fd00:96::1"}, []string{
			"10.96.0.1:80/TCP -> four", "127.0.0.1:30080/TCP -> four", "192.0.2.1:30080/TCP -> four", "192.0.2.1:30080/TCP from outside -> here4",
			"[2001:db8:7::7]:80/TCP -> six", "[2001:db8:7::7]:80/TCP from outside -> here6", "[2001:db8::1]:30080/TCP -> six",
			"[2001:db8::1]:30080/TCP from outside -> here6", "[::1]:30080/TCP -> six", "[fd00:96::1]:80/TCP -> six",
		}},
		"IPv4 alone": {nil, []string{"10.96.0.1"}, []string{
			"10.96.0.1:80/TCP -> four", "127.0.0.1:30080/TCP -> four", "192.0.2.1:30080/TCP -> four", "192.0.2.1:30080/TCP from outside -> here4",
		}},
		"IPv6 alone": {[]string{"IPv6"}, []string{"fd00:96::1"}, []string{
			"[2001:db8:7::7]:80/TCP -> six", "[2001:db8:7::7]:80/TCP from outside -> here6", "[2001:db8::1]:30080/TCP -> six",
			"[2001:db8::1]:30080/TCP from outside -> here6", "[::1]:30080/TCP -> six", "[fd00:96::1]:80/TCP -> six",
		}},
	} {
		svc := newService("svc", spec(test.ips[0], func(s *corev1.ServiceSpec) {
			s.ClusterIps, s.IpFamilies, s.Type, s.ExternalTrafficPolicy = test.ips, test.families, "NodePort", "Local"
			s.ExternalIps, s.Ports[0].NodePort = []string{"2001:db8:7::7"}, 30080
		}))
		table := NewTable("me", netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
		table.OnService(nil, svc)
		table.OnEndpointSlice(nil, newSlice("a", "svc", 8080, "10.244.0.5 rs me", "10.244.0.6 rs other"))
		table.OnEndpointSlice(nil, newSlice6("b", "svc", 8080, "fd00:244::5 rs me", "fd00:244::6 rs other"))
		places := strings.NewReplacer("-> four", "-> [10.244.0.5:8080 10.244.0.6:8080]", "-> here4", "-> [10.244.0.5:8080]",
			"-> six", "-> [[fd00:244::5]:8080 [fd00:244::6]:8080]", "-> here6", "-> [[fd00:244::5]:8080]")
		var want []string
		for _, w := range test.want {
			want = append(want, "ns/svc:http "+places.Replace(w))
		}
		slices.Sort(want)
		if got := describe(table.Flush().Put); got != strings.Join(want, "\n") {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, strings.Join(want, "\n"))
		}
	}
}

func TestHostPorts(t *testing.T) {
	table := NewTable("me", netip.MustParseAddr("192.0.2.1"))
	pod := func(change ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Namespace: "ns", Name: "p"},
			Spec: &corev1.PodSpec{
				InitContainers: []*corev1.Container{{Ports: []*corev1.ContainerPort{{ContainerPort: 9, HostPort: 99, HostIp: "198.51.100.1"}}}},
				Containers: []*corev1.Container{{Ports: []*corev1.ContainerPort{
					{Name: "dns", ContainerPort: 5353, HostPort: 53, Protocol: "UDP", HostIp: "0.0.0.0"}, {ContainerPort: 80}, {ContainerPort: 7, HostPort: 7, Protocol: "SCTP"},
				}}},
			},
			Status: &corev1.PodStatus{Phase: "Running", PodIp: "10.244.0.7"},
		}
		for _, f := range change {
			f(p)
		}
		return p
	}
	const all = "pod ns/p 198.51.100.1:99/TCP -> [10.244.0.7:9]\npod ns/p 198.51.100.1:99/TCP from outside -> [10.244.0.7:9]\n" +
		"pod ns/p:dns 192.0.2.1:53/UDP -> [10.244.0.7:5353]\npod ns/p:dns 192.0.2.1:53/UDP from outside -> [10.244.0.7:5353]"
	for _, step := range []struct {
		what string
		now  *corev1.Pod
		want string
	}{
		{"without an address", pod(func(p *corev1.Pod) { p.Status = nil }), ""},
		{"with one", pod(), all},
		{"in the node's network", pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), ""},
		{"again", pod(), all},
		{"ended", pod(func(p *corev1.Pod) { p.Status.Phase = "Failed" }), ""},
		{"created again", pod(), all},
		{"deleted", nil, ""},
	} {
		table.OnPod(pod(), step.now)
		table.Flush()
		if got := describe(slices.Collect(table.All())); got != step.want {
			t.Errorf("%s:\n%s\nwant\n%s", step.what, got, step.want)
		}
	}
	// A service of the pod's name is another thing.
	table.OnPod(nil, pod())
	table.OnService(nil, newService("p", spec("10.96.0.1")))
	table.Flush()
	table.OnService(newService("p", spec("10.96.0.1")), nil)
	table.Flush()
	if got := describe(slices.Collect(table.All())); got != all {
		t.Errorf("beside a service:\n%s", got)
	}
}

// Endpoints a and b are in this node's zone, a on this node, c is elsewhere.
func TestTrafficDistribution(t *testing.T) {
	const a, b, c = "10.244.0.1 %s me", "10.244.0.2 %s near", "10.244.0.3 %s far"
	for _, test := range []struct {
		distribution string
		conditions   [3]string
		hints        [3]*discoveryv1.EndpointHints
		want         string
	}{
		{"", [3]string{"rs", "rs", "rs"}, [3]*discoveryv1.EndpointHints{}, "[10.244.0.1:80 10.244.0.2:80 10.244.0.3:80]"},
		{"PreferClose", [3]string{"rs", "rs", "rs"}, [3]*discoveryv1.EndpointHints{}, "[10.244.0.1:80 10.244.0.2:80]"},
		{"PreferSameZone", [3]string{"s", "rs", "rs"}, [3]*discoveryv1.EndpointHints{}, "[10.244.0.2:80]"},
		{"PreferSameZone", [3]string{"st", "s", "rs"}, [3]*discoveryv1.EndpointHints{}, "[10.244.0.3:80]"},
		{"PreferSameNode", [3]string{"rs", "rs", "rs"}, [3]*discoveryv1.EndpointHints{}, "[10.244.0.1:80]"},
		{"PreferSameNode", [3]string{"s", "rs", "rs"}, [3]*discoveryv1.EndpointHints{}, "[10.244.0.2:80]"},
		{"PreferSameNode", [3]string{"st", "st", "st"}, [3]*discoveryv1.EndpointHints{}, "[10.244.0.1:80 10.244.0.2:80 10.244.0.3:80]"},
		{"PreferClose", [3]string{"rs", "rs", "rs"}, [3]*discoveryv1.EndpointHints{forZone("there"), forZone("there"), forZone("here")}, "[10.244.0.3:80]"},
		{"PreferSameNode", [3]string{"rs", "rs", "rs"}, [3]*discoveryv1.EndpointHints{forZone("here"), {ForNodes: []*discoveryv1.ForNode{{Name: "me"}}}, forZone("here")}, "[10.244.0.2:80]"},
		{"PreferClose", [3]string{"rs", "rs", "rs"}, [3]*discoveryv1.EndpointHints{forZone("there"), nil, forZone("here")}, "[10.244.0.1:80 10.244.0.2:80]"},
	} {
		table := NewTable("me")
		slice := newSlice("s", "svc", 80)
		for i, text := range []string{a, b, c} {
			ep := newSlice("s", "svc", 80, fmt.Sprintf(text, test.conditions[i])).Endpoints[0]
			ep.Hints = test.hints[i]
			slice.Endpoints = append(slice.Endpoints, ep)
		}
		table.OnEndpointSlice(nil, slice)
		table.OnService(nil, newService("svc", spec("10.96.0.1", func(s *corev1.ServiceSpec) { s.TrafficDistribution = ptr(test.distribution) })))
		table.Flush()
		// The nodes may be known after the services.
		table.SetZones(map[string]string{"me": "here", "near": "here", "far": "there"})
		table.Flush()
		if got, want := describe(slices.Collect(table.All())), "ns/svc:http 10.96.0.1:80/TCP -> "+test.want; got != want {
			t.Errorf("%q with %v and %v:\n%s\nwant\n%s", test.distribution, test.conditions, test.hints, got, want)
		}
	}
}

func forZone(name string) *discoveryv1.EndpointHints {
	return &discoveryv1.EndpointHints{ForZones: []*discoveryv1.ForZone{{Name: name}}}
}

func TestTableFollowsEvents(t *testing.T) {
	table := NewTable("me")
	expect := func(what, put string, deleted int) {
		t.Helper()
		c := table.Flush()
		if got := describe(c.Put); got != put || len(c.Delete) != deleted {
			t.Errorf("%s: put\n%s\nwant\n%s\ndeleted %v, want %d", what, got, put, c.Delete, deleted)
		}
	}
	svc, slice := newService("a", spec("10.96.0.1")), newSlice("s", "a", 80, "10.244.0.5 rs")
	table.OnService(nil, svc)
	table.OnEndpointSlice(nil, slice)
	expect("created", "ns/a:http 10.96.0.1:80/TCP -> [10.244.0.5:80]", 0)

	same := newSlice("s", "a", 80, "10.244.0.5 rs")
	same.Metadata.Annotations = map[string]string{"changed": "yes"}
	table.OnEndpointSlice(slice, same)
	expect("nothing that matters", "", 0)

	// One service takes another's address over before that one is seen to go.
	heir := newService("b", spec("10.96.0.1"))
	table.OnService(nil, heir)
	expect("claimed twice", "", 0)
	table.OnService(svc, nil)
	expect("the first is gone", "ns/b:http 10.96.0.1:80/TCP -> []", 0)

	moved := newService("b", spec("10.96.0.2"))
	table.OnService(heir, moved)
	expect("moved", "ns/b:http 10.96.0.2:80/TCP -> []", 1)
	table.OnService(moved, nil)
	table.OnEndpointSlice(same, nil)
	expect("gone", "", 1)
	if n := len(table.services) + len(table.slices) + len(table.computed) + len(table.claims) + len(table.dirty); n != 0 {
		t.Errorf("something is left: %+v", table)
	}
}

// Whatever happens, the slots hold the wanted backends, and those that can stay
// in their slots do.
func TestAssignSlots(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var slots []netip.AddrPort
	for range 2000 {
		var wanted []netip.AddrPort
		for i := range 10 {
			if r.IntN(2) == 0 {
				wanted = append(wanted, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80))
			}
		}
		before := slots
		slots = assignSlots(before, wanted)
		sorted := slices.Clone(slots)
		slices.SortFunc(sorted, netip.AddrPort.Compare)
		if !slices.Equal(sorted, wanted) {
			t.Fatalf("slots %v for %v", slots, wanted)
		}
		for i, b := range before {
			if i < len(slots) && slices.Contains(wanted, b) && slots[i] != b {
				t.Fatalf("%v lost slot %d: %v, then %v", b, i, before, slots)
			}
		}
	}
}
