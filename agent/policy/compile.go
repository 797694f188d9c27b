package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// Wanted is what the kernel should know: a set for each direction in which
// policies select a pod. Pods that the same policies select share their sets.
type Wanted struct {
	// Pods has the names of each pod's sets, by the pod's UID. Pods that no policy
	// selects are not in it.
	Pods map[string]Sets
	// Sets has the sets by their names.
	Sets map[string]*Set
}

// Sets are the names of a pod's sets, empty for a direction in which no policy
// selects it.
type Sets struct{ Ingress, Egress string }

// Set has the peers that a pod may receive from, or send to, with their ports.
type Set struct {
	// Policies are those that select the pod, sorted.
	Policies []string
	// Peers gives addresses their ports: the longest prefix counts. There is always
	// one of length 0. IPv4 addresses are mapped into IPv6.
	Peers map[netip.Prefix]Ports
}

// Compile returns what the kernel of a node with these pods should know. It
// depends on nothing else, and changes nothing.
func Compile(c *Cluster, local []*Pod) Wanted {
	w := Wanted{Pods: map[string]Sets{}, Sets: map[string]*Set{}}
	if len(c.policies) == 0 {
		return w
	}
	x := compilation{cluster: c, wanted: w}
	for _, pod := range local {
		sets := Sets{Ingress: x.set(pod, Ingress), Egress: x.set(pod, Egress)}
		if sets != (Sets{}) {
			w.Pods[pod.UID] = sets
		}
	}
	return w
}

// selecting returns the policies that are about a direction of the pod's traffic,
// by name.
func (c *Cluster) selecting(pod *Pod, d Direction) []*policy {
	var out []*policy
	for _, p := range c.policies {
		if p.selects(pod, d) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *policy) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// owners returns the pod that has each address now.
func (c *Cluster) owners() map[netip.Addr]*Pod {
	out := make(map[netip.Addr]*Pod, len(c.pods))
	for _, p := range c.pods {
		for _, a := range p.Addrs {
			if p.owns(out[a]) {
				out[a] = p
			}
		}
	}
	return out
}

// owner returns the pod that has the address now, nil when none has.
func (c *Cluster) owner(a netip.Addr) *Pod {
	var out *Pod
	for _, p := range c.pods {
		if slices.Contains(p.Addrs, a) && p.owns(out) {
			out = p
		}
	}
	return out
}

// owns reports whether the pod has its addresses to itself, and not the other one: an address may
// have been passed on before that is known of both, and is the younger one's.
func (p *Pod) owns(other *Pod) bool {
	if p.HostNetwork || p.Finished {
		return false
	}
	return other == nil || p.created.After(other.created) || p.created.Equal(other.created) && p.UID > other.UID
}

type compilation struct {
	cluster *Cluster
	wanted  Wanted
	// byNamespace has the addresses of pods, made when first asked for.
	byNamespace map[string][]podAddr
}

type podAddr struct {
	pod  *Pod
	addr netip.Addr
}

// set makes the pod's set for a direction, unless another pod has the same, and
// returns its name.
func (x *compilation) set(pod *Pod, d Direction) string {
	policies := x.cluster.selecting(pod, d)
	if len(policies) == 0 {
		return ""
	}
	set := &Set{}
	key := d.String()
	for _, p := range policies {
		set.Policies = append(set.Policies, p.String())
		key += " " + p.String()
		for _, r := range p.rules[d] {
			// What a name stands for differs from pod to pod.
			if d == Ingress && len(r.named) > 0 {
				key += " " + string(portsOf(pod.resolve(r.named)))
			}
		}
	}
	if _, known := x.wanted.Sets[key]; known {
		return key
	}
	var g grants
	for _, p := range policies {
		for _, r := range p.rules[d] {
			if d == Ingress {
				r.ports, r.named = slices.Concat(r.ports, pod.resolve(r.named)), nil
			}
			x.grant(&g, p, r)
		}
	}
	set.Peers = g.peers()
	x.wanted.Sets[key] = set
	return key
}

// grant adds what a rule allows.
func (x *compilation) grant(g *grants, p *policy, r rule) {
	if r.peers == nil {
		g.block(anywhere, nil, r.ports)
		if len(r.named) > 0 {
			for namespace := range x.pods() {
				g.pods(x.pods()[namespace], nil, r)
			}
		}
	}
	for _, peer := range r.peers {
		switch {
		case peer.block.IsValid():
			g.block(peer.block, peer.except, r.ports)
		case peer.namespaces == nil:
			g.pods(x.pods()[p.namespace], &peer, r)
		default:
			for namespace, labels := range x.cluster.namespaces {
				if peer.namespaces.Matches(labels) {
					g.pods(x.pods()[namespace], &peer, r)
				}
			}
		}
	}
}

func (x *compilation) pods() map[string][]podAddr {
	if x.byNamespace == nil {
		x.byNamespace = map[string][]podAddr{}
		for addr, pod := range x.cluster.owners() {
			x.byNamespace[pod.Namespace] = append(x.byNamespace[pod.Namespace], podAddr{pod, addr})
		}
	}
	return x.byNamespace
}

// grants collects what the rules of a set allow.
type grants struct {
	blocks []grantedBlock
	addrs  map[netip.Addr][]Range
}

type grantedBlock struct {
	block  netip.Prefix
	except []netip.Prefix
	ports  []Range
}

func (g *grants) block(block netip.Prefix, except []netip.Prefix, ports []Range) {
	if len(ports) > 0 {
		g.blocks = append(g.blocks, grantedBlock{block, except, ports})
	}
}

// pods adds those of the pods that the peer selects, all when it is nil.
func (g *grants) pods(pods []podAddr, p *peer, r rule) {
	if g.addrs == nil {
		g.addrs = map[netip.Addr][]Range{}
	}
	for _, a := range pods {
		if p != nil && !p.pods.Matches(a.pod.Labels) {
			continue
		}
		if ports := slices.Concat(r.ports, a.pod.resolve(r.named)); len(ports) > 0 {
			addr := mappedAddr(a.addr)
			g.addrs[addr] = append(g.addrs[addr], ports...)
		}
	}
}

// peers turns the grants into prefixes. Two prefixes are one within the other or
// have nothing in common, so that all addresses of which a prefix is the longest
// are granted the same.
func (g *grants) peers() map[netip.Prefix]Ports {
	t := newTrie()
	t.ranges[anywhere] = nil
	for _, b := range g.blocks {
		t.ranges[b.block] = nil
		for _, e := range b.except {
			t.ranges[e] = nil
		}
	}
	for p := range t.ranges {
		t.lengths[p.Bits()] = true
		for _, b := range g.blocks {
			if covers(b.block, p) && !slices.ContainsFunc(b.except, func(e netip.Prefix) bool { return covers(e, p) }) {
				t.ranges[p] = append(t.ranges[p], b.ports...)
			}
		}
	}
	out := make(map[netip.Prefix]Ports, len(t.ranges)+len(g.addrs))
	for p, ranges := range t.ranges {
		out[p] = portsOf(ranges)
	}
	for p, ports := range out {
		// What the next shorter prefix says as well need not be said.
		if p.Bits() > 0 && portsOf(t.within(p.Addr(), p.Bits())) == ports {
			delete(out, p)
		}
	}
	for addr, ranges := range g.addrs {
		around := t.within(addr, 129)
		if ports := portsOf(slices.Concat(around, ranges)); ports != portsOf(around) {
			out[netip.PrefixFrom(addr, 128)] = ports
		}
	}
	return out
}

// covers reports whether an outer prefix holds all of the inner one.
func covers(outer, inner netip.Prefix) bool {
	return outer.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// trie finds the longest prefix of an address.
type trie struct {
	ranges  map[netip.Prefix][]Range
	lengths [129]bool
}

func newTrie() *trie { return &trie{ranges: map[netip.Prefix][]Range{}} }

// within returns the ranges of the longest prefix of the address that is shorter
// than a number of bits.
func (t *trie) within(addr netip.Addr, bits int) []Range {
	for n := bits - 1; n >= 0; n-- {
		if !t.lengths[n] {
			continue
		}
		if r, ok := t.ranges[netip.PrefixFrom(addr, n).Masked()]; ok {
			return r
		}
	}
	return nil
}
