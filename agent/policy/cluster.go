package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/networking"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// Direction is that of a connection, as seen from the pod that a policy selects.
type Direction uint8

// The directions, by the numbers that the programs have for them.
const (
	Ingress Direction = 1
	Egress  Direction = 2
)

// String is "ingress" or "egress".
func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// Pod is what policies look at of a pod.
type Pod struct {
	Namespace, Name, UID string
	Labels               labels.Set
	// Addrs are the pod's addresses; none as long as it has no network.
	Addrs []netip.Addr
	// Ports are those that the pod's containers name.
	Ports []NamedPort
	// HostNetwork pods have their node's address: policies do not see them.
	HostNetwork bool
	// Finished pods run no more, and their addresses may be others'.
	Finished bool

	created time.Time
}

// NamedPort is a port of a container that has a name.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Number   uint16
}

// String is the pod's namespace and name.
func (p *Pod) String() string { return p.Namespace + "/" + p.Name }

// PodOf returns what policies look at of a pod.
func PodOf(p *corev1.Pod) *Pod {
	m := p.GetMetadata()
	out := &Pod{
		Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid(), Labels: m.GetLabels(),
		HostNetwork: p.GetSpec().GetHostNetwork(), Finished: core.IsPodFinished(p), created: m.GetCreationTimestamp().AsTime(),
	}
	for _, text := range core.PodAddresses(p) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(out.Addrs, a.Unmap()) {
			out.Addrs = append(out.Addrs, a.Unmap())
		}
	}
	// Init containers that go on as sidecars have ports as well.
	for _, c := range slices.Concat(p.GetSpec().GetContainers(), p.GetSpec().GetInitContainers()) {
		for _, port := range c.GetPorts() {
			protocol, ok := ParseProtocol(cmp.Or(port.GetProtocol(), "TCP"))
			if port.GetName() != "" && ok {
				out.Ports = append(out.Ports, NamedPort{port.GetName(), protocol, uint16(port.GetContainerPort())})
			}
		}
	}
	return out
}

// same reports whether policies see no difference.
func (p *Pod) same(o *Pod) bool {
	return p.UID == o.UID && p.HostNetwork == o.HostNetwork && p.Finished == o.Finished && slices.Equal(p.Addrs, o.Addrs) &&
		slices.Equal(p.Ports, o.Ports) && labels.Equals(p.Labels, o.Labels)
}

// resolve returns the numbers that a port's name stands for in the pod.
func (p *Pod) resolve(named []namedRange) []Range {
	var out []Range
	for _, n := range named {
		for _, port := range p.Ports {
			if port.Name == n.name && port.Protocol == n.protocol {
				out = append(out, Range{port.Protocol, port.Number, port.Number})
			}
		}
	}
	return out
}

// Cluster is what policies, namespaces and pods there are. It is not safe for
// concurrent use.
type Cluster struct {
	policies   map[name]*policy
	namespaces map[string]labels.Set
	pods       map[name]*Pod
}

type name struct{ namespace, name string }

// NewCluster returns a cluster with nothing in it.
func NewCluster() *Cluster {
	return &Cluster{policies: map[name]*policy{}, namespaces: map[string]labels.Set{}, pods: map[name]*Pod{}}
}

// The methods below take an informer's events: old is nil when the object was created, now is nil
// when it was deleted. They report whether that may make a difference.

// OnPolicy takes an event of a policy. Its error is about a policy that makes no
// sense, which the API refuses: what cannot be understood of it allows nothing.
func (c *Cluster) OnPolicy(old, now *networkingv1.NetworkPolicy) (bool, error) {
	if now == nil {
		delete(c.policies, nameOf(old.GetMetadata()))
		return true, nil
	}
	p, err := parsePolicy(now)
	c.policies[nameOf(now.GetMetadata())] = p
	return true, err
}

// OnNamespace takes an event of a namespace.
func (c *Cluster) OnNamespace(old, now *corev1.Namespace) bool {
	if now == nil {
		delete(c.namespaces, old.GetMetadata().GetName())
		return true
	}
	n, set := now.GetMetadata().GetName(), labels.Set(now.GetMetadata().GetLabels())
	before, known := c.namespaces[n]
	c.namespaces[n] = set
	return !known || !labels.Equals(before, set)
}

// OnPod takes an event of a pod.
func (c *Cluster) OnPod(old, now *corev1.Pod) bool {
	if now == nil {
		delete(c.pods, nameOf(old.GetMetadata()))
		return true
	}
	return c.setPod(PodOf(now))
}

func (c *Cluster) setPod(p *Pod) bool {
	key := name{p.Namespace, p.Name}
	before, known := c.pods[key]
	c.pods[key] = p
	return !known || !before.same(p)
}

func nameOf(m *metav1.ObjectMeta) name { return name{m.GetNamespace(), m.GetName()} }

// policy is a NetworkPolicy with its selectors and networks understood.
type policy struct {
	name
	pods labels.Selector
	// rules are nil for a direction that the policy is not about.
	rules map[Direction][]rule
}

// String is the policy's namespace and name.
func (p *policy) String() string { return p.namespace + "/" + p.name.name }

// selects reports whether the policy is about a direction of the pod's traffic.
func (p *policy) selects(pod *Pod, d Direction) bool {
	_, about := p.rules[d]
	return about && p.namespace == pod.Namespace && !pod.HostNetwork && p.pods.Matches(pod.Labels)
}

// rule allows ports to peers.
type rule struct {
	ports []Range
	named []namedRange
	// peers are nil for anybody.
	peers []peer
}

type namedRange struct {
	name     string
	protocol Protocol
}

// peer is a network, or pods.
type peer struct {
	block  netip.Prefix // mapped; invalid for pods
	except []netip.Prefix

	pods labels.Selector
	// namespaces is nil for the policy's own.
	namespaces labels.Selector
}

func parsePolicy(np *networkingv1.NetworkPolicy) (*policy, error) {
	spec := np.GetSpec()
	p := &policy{name: nameOf(np.GetMetadata()), rules: map[Direction][]rule{}}
	var errs parseErrors
	p.pods = errs.selector(spec.GetPodSelector())
	for _, t := range spec.GetPolicyTypes() {
		if t == networking.PolicyIngress {
			p.rules[Ingress] = []rule{}
			for _, r := range spec.GetIngress() {
				p.rules[Ingress] = append(p.rules[Ingress], errs.rule(r.GetPorts(), r.GetFrom()))
			}
		} else {
			p.rules[Egress] = []rule{}
			for _, r := range spec.GetEgress() {
				p.rules[Egress] = append(p.rules[Egress], errs.rule(r.GetPorts(), r.GetTo()))
			}
		}
	}
	if errs.first != nil {
		return p, fmt.Errorf("network policy %s: %w", p, errs.first)
	}
	return p, nil
}

// parseErrors remembers the first thing that makes no sense.
type parseErrors struct{ first error }

func (e *parseErrors) note(err error) {
	if e.first == nil {
		e.first = err
	}
}

// selector is one that selects everything where there is none.
func (e *parseErrors) selector(s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return labels.Everything()
	}
	sel, err := object.LabelSelector(s)
	if err != nil {
		e.note(err)
		return labels.Nothing()
	}
	return sel
}

func (e *parseErrors) rule(ports []*networkingv1.NetworkPolicyPort, peers []*networkingv1.NetworkPolicyPeer) rule {
	var r rule
	if len(ports) == 0 {
		r.ports = []Range{everything}
	}
	for _, p := range ports {
		protocol, ok := ParseProtocol(cmp.Or(p.GetProtocol(), "TCP"))
		switch number := p.GetPort(); {
		case !ok:
			e.note(fmt.Errorf("unknown protocol %q", p.GetProtocol()))
		case number == nil:
			r.ports = append(r.ports, Range{protocol, 0, 65535})
		case number.GetType() == 1:
			r.named = append(r.named, namedRange{number.GetStrVal(), protocol})
		default:
			first := uint16(number.GetIntVal())
			r.ports = append(r.ports, Range{protocol, first, max(first, uint16(p.GetEndPort()))})
		}
	}
	for _, p := range peers {
		r.peers = append(r.peers, e.peer(p))
	}
	return r
}

func (e *parseErrors) peer(p *networkingv1.NetworkPolicyPeer) peer {
	if b := p.GetIpBlock(); b != nil {
		out := peer{block: e.network(b.GetCidr()), pods: labels.Nothing()}
		for _, text := range b.GetExcept() {
			except := e.network(text)
			if !except.IsValid() {
				return peer{pods: labels.Nothing()} // rather nothing than what was excepted
			}
			out.except = append(out.except, except)
		}
		return out
	}
	out := peer{pods: e.selector(p.GetPodSelector())}
	if p.GetNamespaceSelector() != nil {
		out.namespaces = e.selector(p.GetNamespaceSelector())
	}
	return out
}

func (e *parseErrors) network(text string) netip.Prefix {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		e.note(err)
		return netip.Prefix{}
	}
	return mapped(p)
}

// anywhere holds all addresses, of both families.
var anywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)

// mapped is the prefix among IPv6 addresses, where IPv4 has its place too.
func mapped(p netip.Prefix) netip.Prefix {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return netip.PrefixFrom(netip.AddrFrom16(p.Masked().Addr().As16()), bits)
}

func mappedAddr(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
