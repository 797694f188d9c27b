package datapath

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// serviceNameLabel ties an endpoint slice to its service, as in Kubernetes.
const serviceNameLabel = "kubernetes.io/service-name"

// defaultAffinity is how long a client is remembered when the service does not say.
const defaultAffinity = 3 * time.Hour

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that services carry.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns the protocol's name as Kubernetes writes it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	default:
		return fmt.Sprintf("IP/%d", uint8(p))
	}
}

// Frontend is an address that clients connect to. It is comparable.
type Frontend struct {
	netip.AddrPort
	Protocol Protocol
	// Outside says that this is about packets that arrive at the node from
	// elsewhere; otherwise it is about sockets on the node, those of pods
	// included. An address can be for both, with different endpoints.
	Outside bool
}

func (f Frontend) compare(o Frontend) int {
	return cmp.Or(f.AddrPort.Compare(o.AddrPort), cmp.Compare(f.Protocol, o.Protocol), compareBool(f.Outside, o.Outside))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// Service is what the maps hold for one frontend.
type Service struct {
	// Name is "namespace/name", followed by ":port" when the port has a name, and
	// preceded by "pod " for a port of the node that leads to a pod.
	// It is empty in what Dump returns: the kernel does not know it.
	Name string
	// Frontend is where clients connect to.
	Frontend Frontend
	// Affinity is how long a client keeps its backend after its last
	// connection; zero is none. The unit in the kernel is a second.
	Affinity time.Duration
	// Maglev says that packets from elsewhere are spread by a lookup table, the
	// same on every node, instead of at random. It does not matter to sockets.
	Maglev bool
	// Sources are the networks, of the frontend's family, whose clients are served,
	// sorted and without duplicates; none stands for all. They hold for packets from
	// elsewhere.
	Sources []netip.Prefix
	// Backends are the addresses, of the frontend's family, that connections go to,
	// sorted and without duplicates. A service without any refuses connections.
	Backends []netip.AddrPort
}

func (s *Service) equal(o *Service) bool {
	return s.Name == o.Name && s.Frontend == o.Frontend && s.Affinity == o.Affinity && s.Maglev == o.Maglev &&
		slices.Equal(s.Sources, o.Sources) && slices.Equal(s.Backends, o.Backends)
}

// Change is a difference between two states of the maps.
type Change struct {
	// Put are frontends that are new or whose contents changed.
	Put []Service
	// Delete are frontends that are gone.
	Delete []Frontend
}

// Empty reports whether there is nothing to do.
func (c Change) Empty() bool { return len(c.Put) == 0 && len(c.Delete) == 0 }

// has reports whether the change is about a protocol.
func (c Change) has(p Protocol) bool {
	return slices.ContainsFunc(c.Put, func(s Service) bool { return s.Frontend.Protocol == p }) ||
		slices.ContainsFunc(c.Delete, func(f Frontend) bool { return f.Protocol == p })
}

// Table computes the wanted contents of the service maps from services and endpoint slices. It is
// pure: it knows no kernel. Only what an event concerns is computed again. It is not safe for
// concurrent use. It keeps the objects that it is given and never writes to them.
type Table struct {
	node     string
	nodeIPs  []netip.Addr
	zones    map[string]string // by node
	reach    reach
	maglev   bool // unless a service says otherwise
	services map[key]*corev1.Service
	slices   map[key]map[string]*discoveryv1.EndpointSlice // by service, then by the slice's name

	pods map[key]*corev1.Pod // on this node, with ports of the node

	dirty    map[key]struct{}
	computed map[key][]*Service
	// Two services can claim one address for a moment, while one is replaced by
	// the other. The first by name has it, so that all nodes agree.
	claims map[Frontend][]*Service

	balancers balancers
}

type key struct {
	namespace, name string
	pod             bool // or a service
}

// NewTable returns the empty table of the named node, which opens node ports at
// the addresses.
func NewTable(node string, nodeIPs ...netip.Addr) *Table {
	return &Table{
		node:     node,
		nodeIPs:  nodeIPs,
		zones:    make(map[string]string),
		services: make(map[key]*corev1.Service),
		slices:   make(map[key]map[string]*discoveryv1.EndpointSlice),
		pods:     make(map[key]*corev1.Pod),
		dirty:    make(map[key]struct{}),
		computed: make(map[key][]*Service),
		claims:   make(map[Frontend][]*Service),
		balancers: balancers{
			known: make(map[key]*balancer),
		},
	}
}

// PreferMaglev makes services that do not say otherwise spread what arrives from
// elsewhere by lookup tables. It comes before the first event.
func (t *Table) PreferMaglev() { t.maglev = true }

// OnService takes the event of a service: old is nil when it was created, now
// is nil when it was deleted.
func (t *Table) OnService(old, now *corev1.Service) {
	if now == nil {
		k := keyOf(old.GetMetadata())
		delete(t.services, k)
		t.dirty[k] = struct{}{}
		return
	}
	k := keyOf(now.GetMetadata())
	t.services[k] = now
	t.dirty[k] = struct{}{}
}

// OnEndpointSlice takes the event of an endpoint slice: old is nil when it was
// created, now is nil when it was deleted.
func (t *Table) OnEndpointSlice(old, now *discoveryv1.EndpointSlice) {
	if old != nil {
		k := serviceOf(old)
		delete(t.slices[k], old.GetMetadata().GetName())
		if len(t.slices[k]) == 0 {
			delete(t.slices, k)
		}
		t.dirty[k] = struct{}{}
	}
	if now != nil {
		k := serviceOf(now)
		if t.slices[k] == nil {
			t.slices[k] = make(map[string]*discoveryv1.EndpointSlice, 1)
		}
		t.slices[k][now.GetMetadata().GetName()] = now
		t.dirty[k] = struct{}{}
	}
}

// SetZones says in which zone each node is, as far as nodes have zones. The map is
// kept.
func (t *Table) SetZones(zones map[string]string) {
	if maps.Equal(t.zones, zones) {
		return
	}
	t.zones = zones
	for k, svc := range t.services {
		if svc.GetSpec().GetTrafficDistribution() != "" {
			t.dirty[k] = struct{}{}
		}
	}
}

// Flush computes what the events since the last Flush changed.
func (t *Table) Flush() Change {
	touched := make(map[Frontend]*Service) // the previous contents; nil: there were none
	touch := func(f Frontend) {
		if _, ok := touched[f]; !ok {
			touched[f] = t.owner(f)
		}
	}
	for k := range t.dirty {
		now := t.compute(k)
		for _, s := range t.computed[k] {
			touch(s.Frontend)
			t.release(s)
		}
		for _, s := range now {
			touch(s.Frontend)
			t.claim(s)
		}
		if len(now) == 0 {
			delete(t.computed, k)
		} else {
			t.computed[k] = now
		}
	}
	if len(t.dirty) > 0 {
		t.dirty = make(map[key]struct{}) // one that was large stays slow to walk through
	}

	var c Change
	for f, was := range touched {
		switch is := t.owner(f); {
		case is == nil && was == nil:
		case is == nil:
			c.Delete = append(c.Delete, f)
		case was == nil || !is.equal(was):
			c.Put = append(c.Put, *is)
		}
	}
	return c
}

// All returns everything that is wanted as of the last Flush, in no order.
func (t *Table) All() iter.Seq[Service] {
	return func(yield func(Service) bool) {
		for _, claims := range t.claims {
			if !yield(*claims[0]) {
				return
			}
		}
	}
}

// compute returns what one service, or pod, wants in the maps.
func (t *Table) compute(k key) []*Service {
	if k.pod {
		return t.computeHostPorts(k)
	}
	svc := t.services[k]
	spec := svc.GetSpec()
	t.balance(k, svc)
	if svc == nil || spec.GetType() == "ExternalName" {
		return nil
	}
	var endpoints []*discoveryv1.EndpointSlice
	for _, s := range t.slices[k] {
		endpoints = append(endpoints, s)
	}
	local := spec.GetInternalTrafficPolicy() == "Local"
	var out []*Service
	for _, port := range spec.GetPorts() {
		protocol, ok := protocolOf(port)
		if !ok {
			continue
		}
		add := func(addr netip.Addr, number int32, outside, local bool) *Service {
			if number <= 0 || number >= 1<<16 {
				return &Service{}
			}
			s := &Service{
				Name:     portName(k, port.GetName()),
				Frontend: Frontend{AddrPort: netip.AddrPortFrom(addr, uint16(number)), Protocol: protocol, Outside: outside},
				Affinity: affinity(spec),
				Maglev:   outside && t.spreadsByMaglev(svc),
				Backends: t.selectBackends(svc, port, endpoints, addr.Is6(), local),
			}
			out = append(out, s)
			return s
		}
		for _, addr := range clusterIPs(spec) {
			add(addr, port.GetPort(), false, local)
		}
		// Who is in the cluster reaches all pods by an address for the outside.
		keep := spec.GetExternalTrafficPolicy() == "Local"
		given := ingressIPs(svc)
		for _, addr := range given {
			add(addr, port.GetPort(), false, false)
			add(addr, port.GetPort(), true, keep).Sources = sources(spec, addr.Is6())
		}
		for _, addr := range parse(spec.GetExternalIps()) {
			if !slices.Contains(given, addr) && hasFamily(spec, addr.Is6()) {
				add(addr, port.GetPort(), false, false)
				add(addr, port.GetPort(), true, keep)
			}
		}
		for _, addr := range t.nodeIPs {
			if !hasFamily(spec, addr.Is6()) {
				continue
			}
			add(addr, port.GetNodePort(), false, false)
			add(addr, port.GetNodePort(), true, keep)
			add(loopbackOf(addr), port.GetNodePort(), false, false)
		}
	}
	return out
}

func protocolOf(port interface{ GetProtocol() string }) (Protocol, bool) {
	switch protocolName(port.GetProtocol()) {
	case "TCP":
		return TCP, true
	case "UDP":
		return UDP, true
	default:
		return 0, false
	}
}

func (t *Table) owner(f Frontend) *Service {
	if claims := t.claims[f]; len(claims) > 0 {
		return claims[0]
	}
	return nil
}

func (t *Table) claim(s *Service) {
	claims := t.claims[s.Frontend]
	i, _ := slices.BinarySearchFunc(claims, s, func(a, b *Service) int { return cmp.Compare(a.Name, b.Name) })
	t.claims[s.Frontend] = slices.Insert(claims, i, s)
}

func (t *Table) release(s *Service) {
	claims := slices.DeleteFunc(t.claims[s.Frontend], func(c *Service) bool { return c == s })
	if len(claims) == 0 {
		delete(t.claims, s.Frontend)
		return
	}
	t.claims[s.Frontend] = claims
}

// hasFamily reports whether a service has addresses of a family. One that is headless, or older
// than its families, has those of its cluster IPs, or IPv4.
func hasFamily(spec *corev1.ServiceSpec, six bool) bool {
	if families := spec.GetIpFamilies(); len(families) > 0 {
		return slices.Contains(families, familyName(six))
	}
	addrs := clusterIPs(spec)
	return len(addrs) == 0 && !six || slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is6() == six })
}

func familyName(six bool) string {
	if six {
		return "IPv6"
	}
	return "IPv4"
}

// loopbackOf is where a node's own processes reach node ports as well.
func loopbackOf(node netip.Addr) netip.Addr {
	if node.Is6() {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// ingressIPs returns the addresses of the service's load balancers that pass
// packets on as they are. Packets from proxies come to other addresses.
func ingressIPs(svc *corev1.Service) []netip.Addr {
	if svc.GetSpec().GetType() != "LoadBalancer" {
		return nil
	}
	var texts []string
	for _, in := range svc.GetStatus().GetLoadBalancer().GetIngress() {
		if in.GetIpMode() != "Proxy" {
			texts = append(texts, in.GetIp())
		}
	}
	return parse(texts)
}

// sources returns the clients outside, of one family, that load balancers are to serve, none for
// all.
func sources(spec *corev1.ServiceSpec, six bool) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range spec.GetLoadBalancerSourceRanges() {
		if p, err := netip.ParsePrefix(strings.TrimSpace(text)); err == nil && p.Addr().Is6() == six {
			out = append(out, p.Masked())
		}
	}
	if len(out) == 0 && len(spec.GetLoadBalancerSourceRanges()) > 0 {
		// Ranges of which none is of the family are for no client of the family.
		nobody := netip.IPv6Loopback()
		if !six {
			nobody = loopbackOf(netip.IPv4Unspecified())
		}
		return []netip.Prefix{netip.PrefixFrom(nobody, nobody.BitLen())}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	out = slices.Compact(out)
	if len(out) > 0 && out[0].Bits() == 0 {
		return nil
	}
	return out
}

// selectionAnnotation on a service says how what arrives from elsewhere is spread over
// its endpoints: "random" or "maglev".
const selectionAnnotation = "xebec.io/backend-selection"

func (t *Table) spreadsByMaglev(svc *corev1.Service) bool {
	switch svc.GetMetadata().GetAnnotations()[selectionAnnotation] {
	case "maglev":
		return true
	case "random":
		return false
	}
	return t.maglev
}

// clusterIPs returns the service's addresses; a headless service has none.
func clusterIPs(spec *corev1.ServiceSpec) []netip.Addr {
	texts := spec.GetClusterIps()
	if len(texts) == 0 {
		texts = []string{spec.GetClusterIp()}
	}
	return parse(texts)
}

// parse returns the addresses among the texts, each once, sorted.
func parse(texts []string) []netip.Addr {
	if len(texts) == 0 {
		return nil
	}
	out := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil && !addr.Is4In6() {
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func affinity(spec *corev1.ServiceSpec) time.Duration {
	if spec.GetSessionAffinity() != "ClientIP" {
		return 0
	}
	if s := spec.GetSessionAffinityConfig().GetClientIp(); s != nil && s.TimeoutSeconds != nil {
		return time.Duration(*s.TimeoutSeconds) * time.Second
	}
	return defaultAffinity
}

func keyOf(m *metav1.ObjectMeta) key { return key{namespace: m.GetNamespace(), name: m.GetName()} }

func serviceOf(s *discoveryv1.EndpointSlice) key {
	return key{namespace: s.GetMetadata().GetNamespace(), name: s.GetMetadata().GetLabels()[serviceNameLabel]}
}

func portName(k key, port string) string {
	name := k.namespace + "/" + k.name
	if k.pod {
		name = "pod " + name
	}
	if port != "" {
		name += ":" + port
	}
	return name
}
