package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Verdict reports whether policies allow a connection between two addresses, and the rule that
// decides. It goes by the policies alone, not by what the kernel has: addresses that are no pod's
// are judged only at the other end, and what the node of a pod sends to it, or gets from it, is not
// judged at all. For protocols without ports, port is 0.
func (c *Cluster) Verdict(from, to netip.Addr, protocol Protocol, port uint16) (allowed bool, rule string) {
	owners := c.owners()
	from, to = from.Unmap(), to.Unmap()
	source, target := owners[from], owners[to]
	if from == to {
		return true, "a pod always reaches itself"
	}
	var rules []string
	for _, end := range []struct {
		pod, peer *Pod
		addr      netip.Addr
		direction Direction
	}{{source, target, to, Egress}, {target, source, from, Ingress}} {
		if end.pod == nil {
			continue
		}
		allowed, rule := c.judge(end.pod, end.peer, end.addr, end.direction, protocol, port)
		if !allowed {
			return false, rule
		}
		rules = append(rules, rule)
	}
	if len(rules) == 0 {
		return true, "neither end is a pod"
	}
	return true, strings.Join(rules, "; ")
}

// judge judges one end of a connection: the peer, nil for no pod, has the address.
func (c *Cluster) judge(pod, other *Pod, addr netip.Addr, d Direction, protocol Protocol, port uint16) (bool, string) {
	policies := c.selecting(pod, d)
	if len(policies) == 0 {
		return true, fmt.Sprintf("no policy selects %s for %s", pod, d)
	}
	for _, p := range policies {
		for i, r := range p.rules[d] {
			ports := r.ports
			switch {
			case d == Ingress:
				ports = slices.Concat(ports, pod.resolve(r.named))
			case other != nil:
				ports = slices.Concat(ports, other.resolve(r.named))
			}
			if c.isPeer(p, r, other, addr) && portsOf(ports).Contains(protocol, port) {
				return true, fmt.Sprintf("%s allows it by its %s rule %d", p, d, i+1)
			}
		}
	}
	names := make([]string, 0, len(policies))
	for _, p := range policies {
		names = append(names, p.String())
	}
	return false, Isolation(names, pod.String(), d)
}

func (c *Cluster) isPeer(p *policy, r rule, other *Pod, addr netip.Addr) bool {
	if r.peers == nil {
		return true
	}
	return slices.ContainsFunc(r.peers, func(peer peer) bool {
		switch {
		case peer.block.IsValid():
			single := netip.PrefixFrom(mappedAddr(addr), 128)
			return covers(peer.block, single) && !slices.ContainsFunc(peer.except, func(e netip.Prefix) bool { return covers(e, single) })
		case other == nil || !peer.pods.Matches(other.Labels):
			return false
		case peer.namespaces == nil:
			return other.Namespace == p.namespace
		}
		labels, known := c.namespaces[other.Namespace]
		return known && peer.namespaces.Matches(labels)
	})
}

// Isolation says why a pod that policies select for a direction may not have what
// none of them allows.
func Isolation(policies []string, pod string, d Direction) string {
	verb, none := "selects", "no rule of this policy allows it"
	if len(policies) > 1 {
		verb, none = "select", "no rule of these policies allows it"
	}
	return fmt.Sprintf("%s %s %s for %s; %s", strings.Join(policies, ", "), verb, pod, d, none)
}
