package datapath

import (
	"cmp"
	"hash/fnv"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/xebec-project/xebec/internal/kind"
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
	class string // none are answered for when it is empty
	// announcers are the nodes that may answer, sorted; nil while they are not known.
	announcers []string
	known      map[key]*balancer
	// changed is set when who answers, or the health of a service, may have changed.
	changed bool
}

// balancer is what of a service of type LoadBalancer concerns more than the maps.
type balancer struct {
	addrs []netip.Addr
	// nodes are those with ready endpoints; nil when it does not matter who answers.
	nodes []string
	check HealthCheck
}

// HealthCheck is what a node tells load balancers of a service that keeps traffic on
// the node that it reached.
type HealthCheck struct {
	// Port is where it is told; 0: nowhere.
	Port uint16
	// Namespace and Name are the service's.
	Namespace, Name string
	// Endpoints counts the ready endpoints on this node.
	Endpoints int
}

// Announcers returns the nodes that may answer for load balancers' addresses, sorted:
// those that are ready and not excluded by their label. When no node is ready, which
// says more of who looks after nodes than of them, all do that are not excluded.
func Announcers(nodes iter.Seq[*corev1.Node]) []string {
	var ready, others []string
	for n := range nodes {
		m := n.GetMetadata()
		if _, excluded := m.GetLabels()[excludeLabel]; excluded {
			continue
		}
		if kind.NodeCondition(n, kind.NodeReady).GetStatus() == "True" {
			ready = append(ready, m.GetName())
		} else {
			others = append(others, m.GetName())
		}
	}
	if len(ready) == 0 {
		ready = others
	}
	slices.Sort(ready)
	return append([]string{}, ready...) // not nil: it is known that there is none
}

// AnnounceClass makes nodes answer for the addresses of load balancers that are of the
// class, or of none. It comes before the first event.
func (t *Table) AnnounceClass(class string) { t.balancers.class = class }

// SetAnnouncers says which nodes may answer for addresses, as Announcers returns them.
// The slice is kept.
func (t *Table) SetAnnouncers(nodes []string) {
	if t.balancers.announcers == nil || !slices.Equal(t.balancers.announcers, nodes) {
		t.balancers.announcers, t.balancers.changed = nodes, true
	}
}

// balance computes anew what a service wants besides the maps. svc is nil when there is
// no such service.
func (t *Table) balance(k key, svc *corev1.Service) {
	b := &t.balancers
	spec := svc.GetSpec()
	if spec.GetType() != kind.ServiceLoadBalancer {
		if _, was := b.known[k]; was {
			delete(b.known, k)
			b.changed = true
		}
		return
	}
	now := &balancer{}
	if b.class != "" && (spec.LoadBalancerClass == nil || spec.GetLoadBalancerClass() == b.class) {
		// Nodes answer for IPv4 addresses only: others have to be routed to them.
		now.addrs = slices.DeleteFunc(ingressIPs(svc), netip.Addr.Is6)
	}
	if kind.NeedsHealthCheckNodePort(svc) {
		ready := t.readyEndpoints(k, spec.GetPublishNotReadyAddresses())
		now.nodes = slices.Sorted(maps.Keys(ready))
		if now.nodes == nil {
			now.nodes = []string{}
		}
		now.check = HealthCheck{Port: uint16(spec.GetHealthCheckNodePort()), Namespace: k.namespace, Name: k.name, Endpoints: ready[t.node]}
	}
	if was := b.known[k]; was == nil || !slices.Equal(was.addrs, now.addrs) || !slices.Equal(was.nodes, now.nodes) || was.check != now.check {
		b.changed = true
	}
	b.known[k] = now
}

// readyEndpoints counts the service's ready endpoints by node.
func (t *Table) readyEndpoints(k key, publish bool) map[string]int {
	seen := make(map[string]map[string]bool) // addresses, by node
	for _, slice := range t.slices[k] {
		for _, ep := range slice.GetEndpoints() {
			if node := ep.GetNodeName(); len(ep.GetAddresses()) > 0 && (publish || conditionsOf(ep).ready) {
				if seen[node] == nil {
					seen[node] = make(map[string]bool)
				}
				seen[node][ep.GetAddresses()[0]] = true
			}
		}
	}
	out := make(map[string]int, len(seen))
	for node, addrs := range seen {
		out[node] = len(addrs)
	}
	return out
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
			if elect(addr, b.announcers, known.nodes) == t.node {
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
			return elect(addr, t.balancers.announcers, known.nodes)
		}
	}
	return ""
}

// elect returns the node that answers for the address: of those that may, and, unless
// only is nil, are among those, the one that weighs most for this address (highest
// random weight: Thaler and Ravishankar, 1998). All nodes come to the same, and when one
// is lost no address moves but its own. Empty: no node may.
func elect(addr netip.Addr, announcers, only []string) string {
	best, most := "", uint64(0)
	for _, node := range announcers {
		if only != nil {
			if _, ok := slices.BinarySearch(only, node); !ok {
				continue
			}
		}
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
