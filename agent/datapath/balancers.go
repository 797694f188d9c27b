package datapath

import (
	"cmp"
	"hash/fnv"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// DefaultClass is the loadBalancerClass of services whose addresses nodes answer for,
// besides those that name none.
const DefaultClass = "xebec.io/pool"

// excludeLabel on a node keeps it from answering for load balancers' addresses, as in
// Kubernetes.
const excludeLabel = "node.kubernetes.io/exclude-from-external-load-balancers"

// balancers are the services with addresses that one of the nodes answers for.
type balancers struct {
	class      string      // none are answered for when it is empty
	announcers *Announcers // nil while they are not known
	known      map[key]*balancer
	// changed is set when who answers, or the health of a service, may have changed.
	changed bool
}

// balancer is what of a service of type LoadBalancer concerns more than the maps.
type balancer struct {
	addrs []netip.Addr
	// nodes are those with ready endpoints of an address's family, which are then the only
	// ones that may answer; nil when it does not matter who answers.
	nodes *byFamily
	check HealthCheck
}

// byFamily are nodes for addresses of either family, sorted.
type byFamily struct{ four, six []string }

func (n *byFamily) of(addr netip.Addr) []string {
	if addr.Is6() {
		return n.six
	}
	return n.four
}

func (n *byFamily) equal(other *byFamily) bool {
	if n == nil || other == nil {
		return n == other
	}
	return slices.Equal(n.four, other.four) && slices.Equal(n.six, other.six)
}

// HealthCheck is what a node tells load balancers of a service that keeps traffic on
// the node that it reached.
type HealthCheck struct {
	// Port is the port of the health check server; 0: there is none.
	Port uint16
	// Namespace and Name are the service's.
	Namespace, Name string
	// Endpoints counts the ready endpoints on this node.
	Endpoints int
}

// Announcers are the nodes that may answer for load balancers' addresses.
type Announcers struct{ nodes byFamily }

// NewAnnouncers chooses them: those that are ready and not excluded by their label, for
// IPv6 addresses those that have one. When no node is ready, which says more of who looks
// after nodes than of them, all do that are not excluded.
func NewAnnouncers(nodes iter.Seq[*corev1.Node]) *Announcers {
	type candidates struct{ ready, others []string }
	var four, six candidates
	for n := range nodes {
		if _, excluded := n.GetMetadata().GetLabels()[excludeLabel]; excluded {
			continue
		}
		ready := core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True
		for _, c := range []struct {
			to  *candidates
			may bool
		}{{&four, true}, {&six, hasIPv6(n)}} {
			switch {
			case !c.may:
			case ready:
				c.to.ready = append(c.to.ready, n.GetMetadata().GetName())
			default:
				c.to.others = append(c.to.others, n.GetMetadata().GetName())
			}
		}
	}
	choose := func(c candidates) []string {
		if len(c.ready) == 0 {
			c.ready = c.others
		}
		slices.Sort(c.ready)
		return c.ready
	}
	return &Announcers{byFamily{choose(four), choose(six)}}
}

// hasIPv6 reports whether a node has an IPv6 address on the wire.
func hasIPv6(n *corev1.Node) bool {
	return slices.ContainsFunc(n.GetStatus().GetAddresses(), func(a *corev1.NodeAddress) bool {
		return a.GetType() == core.NodeInternalIP && core.FamilyOf(a.GetAddress()) == core.FamilyIPv6
	})
}

// Equal reports whether the same nodes may answer for the same addresses.
func (a *Announcers) Equal(other *Announcers) bool {
	if a == nil || other == nil {
		return a == other
	}
	return a.nodes.equal(&other.nodes)
}

// AnnounceClass makes nodes answer for the addresses of load balancers that are of the
// class, or of none. It comes before the first event.
func (t *Table) AnnounceClass(class string) { t.balancers.class = class }

// SetAnnouncers says which nodes may answer for addresses.
func (t *Table) SetAnnouncers(nodes *Announcers) {
	if !t.balancers.announcers.Equal(nodes) {
		t.balancers.announcers, t.balancers.changed = nodes, true
	}
}

// balance computes again what a service requires besides the maps. svc is nil when there is no such
// service.
func (t *Table) balance(k key, svc *corev1.Service) {
	b := &t.balancers
	spec := svc.GetSpec()
	if spec.GetType() != core.ServiceLoadBalancer {
		if _, was := b.known[k]; was {
			delete(b.known, k)
			b.changed = true
		}
		return
	}
	now := &balancer{}
	if b.class != "" && (spec.LoadBalancerClass == nil || spec.GetLoadBalancerClass() == b.class) {
		now.addrs = ingressIPs(svc)
	}
	if core.NeedsHealthCheckNodePort(svc) {
		four, six := t.readyEndpoints(k, spec.GetPublishNotReadyAddresses())
		now.nodes = &byFamily{slices.Sorted(maps.Keys(four)), slices.Sorted(maps.Keys(six))}
		// A pod of both families is one endpoint.
		now.check = HealthCheck{
			Port:      uint16(spec.GetHealthCheckNodePort()),
			Namespace: k.namespace,
			Name:      k.name,
			Endpoints: max(four[t.node], six[t.node]),
		}
	}
	if was := b.known[k]; was == nil || !slices.Equal(was.addrs, now.addrs) || !was.nodes.equal(now.nodes) || was.check != now.check {
		b.changed = true
	}
	b.known[k] = now
}

// readyEndpoints counts the service's ready endpoints of either family by node.
func (t *Table) readyEndpoints(k key, publish bool) (four, six map[string]int) {
	four, six = make(map[string]int), make(map[string]int)
	seen := make(map[string]bool)
	for _, slice := range t.slices[k] {
		count := four
		if slice.GetAddressType() == "IPv6" {
			count = six
		}
		for _, ep := range slice.GetEndpoints() {
			if len(ep.GetAddresses()) == 0 || seen[ep.GetAddresses()[0]] || !publish && !conditionsOf(ep).ready {
				continue
			}
			seen[ep.GetAddresses()[0]] = true
			count[ep.GetNodeName()]++
		}
	}
	return four, six
}

// Balancers returns, when that may have changed since the last call, the addresses that
// this node answers for, sorted, and what it tells of services' health, sorted by port.
// It counts as of the last Flush.
func (t *Table) Balancers() (mine []netip.Addr, checks []HealthCheck, changed bool) {
	b := &t.balancers
	if !b.changed || b.announcers == nil {
		return nil, nil, false
	}
	b.changed = false
	for _, known := range b.known {
		for _, addr := range known.addrs {
			if b.elect(addr, known) == t.node {
				mine = append(mine, addr)
			}
		}
		if known.check.Port != 0 {
			checks = append(checks, known.check)
		}
	}
	slices.SortFunc(mine, netip.Addr.Compare)
	slices.SortFunc(checks, func(a, b HealthCheck) int { return cmp.Compare(a.Port, b.Port) })
	return slices.Compact(mine), checks, true
}

// Announcer returns the node that answers for a load balancer's address, as of the last
// Flush; empty: none does, or the address is not one.
func (t *Table) Announcer(addr netip.Addr) string {
	for _, known := range t.balancers.known {
		if slices.Contains(known.addrs, addr) {
			return t.balancers.elect(addr, known)
		}
	}
	return ""
}

// elect returns the node that answers for an address of a balancer; empty: no node may, or
// they are not known.
func (b *balancers) elect(addr netip.Addr, of *balancer) string {
	if b.announcers == nil {
		return ""
	}
	may := b.announcers.nodes.of(addr)
	if of.nodes != nil {
		may = slices.DeleteFunc(slices.Clone(may), func(node string) bool {
			_, has := slices.BinarySearch(of.nodes.of(addr), node)
			return !has
		})
	}
	return elect(addr, may)
}

// elect returns the node that answers for the address: of those that may, the one that
// weighs most for this address (highest random weight: Thaler and Ravishankar, 1998). All
// nodes come to the same, and when one is lost no address moves but its own. Empty: no node
// may.
func elect(addr netip.Addr, nodes []string) string {
	best, most := "", uint64(0)
	for _, node := range nodes {
		h := fnv.New64a()
		b := addr.As16()
		h.Write(b[:])
		h.Write([]byte(node))
		if weight := scatter(h.Sum64()); best == "" || weight > most {
			best, most = node, weight
		}
	}
	return best
}
