package framework

import (
	"maps"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/kinds/core"
)

// Tally counts pods by domain: by the value that their nodes have for a topology label. The
// snapshot keeps it current as pods and nodes come and go, so that no cycle counts pods.
type Tally struct {
	// TopologyKey is the label; empty when each node is a domain of its own.
	TopologyKey string
	// Total is the number of pods in all domains.
	Total int

	counts map[string]int // by value, without zeros
}

// Of returns the number of pods in the domain of a node; ok is false when the node has no such
// label.
func (t *Tally) Of(n *Node) (count int, ok bool) {
	value, ok := t.domain(n)
	return t.counts[value], ok
}

func (t *Tally) domain(n *Node) (value string, ok bool) {
	if t.TopologyKey == "" {
		return n.Name, true
	}
	value, ok = n.Labels[t.TopologyKey]
	return value, ok
}

func (t *Tally) add(n *Node, by int) {
	if value, ok := t.domain(n); ok {
		bump(t.counts, value, by)
		t.Total += by
	}
}

// Carried is a term of affinity with the pods on nodes that have it.
type Carried struct {
	// PodTerm is the term.
	PodTerm
	// Tally counts the pods that have the term.
	Tally

	nominated int // the waiting pods that have the term and a nominated node
}

// podTally counts the pods that match all of its selectors.
type podTally struct {
	Tally
	selectors []*PodSelector
	live      bool // leaves out pods that are being deleted
}

func (t *podTally) matches(in *Snapshot, g *podGroup) bool {
	if t.live && g.deleting {
		return false
	}
	return !slices.ContainsFunc(t.selectors, func(s *PodSelector) bool { return !s.matches(in, g.namespace, g.labels) })
}

// podGroup holds the pods on nodes that every selector treats alike: those of one namespace with
// equal labels, as the pods of a ReplicaSet have.
type podGroup struct {
	namespace string
	labels    map[string]string
	deleting  bool
	nodes     map[*Node]int
	tallies   []*podTally // that count these pods
}

// podIndex holds the pods on existing nodes by what selectors and terms see of them.
type podIndex struct {
	groups  map[string]*podGroup
	tallies map[string]*podTally
	carried [termKinds]map[string]*Carried
	unused  []carriedKey // of terms that no pod had at some time since trim
}

// carriedKey names an entry of carried.
type carriedKey struct {
	kind TermKind
	key  string
}

func newPodIndex() podIndex {
	x := podIndex{groups: map[string]*podGroup{}, tallies: map[string]*podTally{}}
	for kind := range x.carried {
		x.carried[kind] = map[string]*Carried{}
	}
	return x
}

// maxTallies bounds the tallies that are kept for terms that no pod may have any more.
const maxTallies = 1024

// trim drops terms that no pod has, and all tallies when there are too many; those in use return.
// What a cycle holds is not current any more after that.
func (x *podIndex) trim() {
	for _, u := range x.unused {
		if c := x.carried[u.kind][u.key]; c != nil && c.Total == 0 && c.nominated == 0 {
			delete(x.carried[u.kind], u.key)
		}
	}
	x.unused = x.unused[:0]
	if len(x.tallies) > maxTallies {
		x.drop(func(*podTally) bool { return true })
	}
}

// drop drops some tallies.
func (x *podIndex) drop(which func(*podTally) bool) {
	maps.DeleteFunc(x.tallies, func(_ string, t *podTally) bool { return which(t) })
	for _, g := range x.groups {
		g.tallies = slices.DeleteFunc(g.tallies, which)
	}
}

// count counts a pod on a node, or takes it off for -1.
func (x *podIndex) count(in *Snapshot, n *Node, p *Pod, by int) {
	g := x.groups[p.group]
	if g == nil {
		g = &podGroup{namespace: p.Namespace, labels: p.Labels, deleting: p.Deleting, nodes: map[*Node]int{}}
		x.groups[p.group] = g
		for _, t := range x.tallies {
			if t.matches(in, g) {
				g.tallies = append(g.tallies, t)
			}
		}
	}
	bump(g.nodes, n, by)
	if len(g.nodes) == 0 {
		delete(x.groups, p.group)
	}
	for _, t := range g.tallies {
		t.add(n, by)
	}
	for kind, terms := range p.Terms {
		for i := range terms {
			x.countTerm(TermKind(kind), &terms[i], n, by)
		}
	}
}

func (x *podIndex) countTerm(kind TermKind, t *PodTerm, n *Node, by int) {
	key, c := x.entry(kind, t)
	c.add(n, by)
	if c.Total == 0 {
		// A cycle may hold the entry, and put the pod back.
		x.unused = append(x.unused, carriedKey{kind, key})
	}
}

// entry returns the entry of a term, a new one when no pod has it.
func (x *podIndex) entry(kind TermKind, t *PodTerm) (key string, c *Carried) {
	key = t.key()
	c = x.carried[kind][key]
	if c == nil {
		c = &Carried{PodTerm: *t, Tally: Tally{TopologyKey: t.TopologyKey, counts: map[string]int{}}}
		x.carried[kind][key] = c
	}
	return key, c
}

// nominate keeps the entries of the terms of a waiting pod, or not any more for -1: a cycle looks
// at the pod's nominated node as if the pod were there.
func (x *podIndex) nominate(p *Pod, by int) {
	for kind, terms := range p.Terms {
		for i := range terms {
			key, c := x.entry(TermKind(kind), &terms[i])
			if c.nominated += by; c.nominated == 0 {
				x.unused = append(x.unused, carriedKey{TermKind(kind), key})
			}
		}
	}
}

// tally returns the tally of the pods that match all selectors, and counts them when it is new.
func (x *podIndex) tally(in *Snapshot, topologyKey string, live bool, selectors []*PodSelector) *Tally {
	var key strings.Builder
	key.WriteString(topologyKey)
	if live {
		key.WriteByte(1)
	}
	for _, s := range selectors {
		key.WriteString("\x00\x00\x00" + s.key)
	}
	t := x.tallies[key.String()]
	if t == nil {
		t = &podTally{Tally{TopologyKey: topologyKey, counts: map[string]int{}}, selectors, live}
		x.tallies[key.String()] = t
		for _, g := range x.groups {
			if !t.matches(in, g) {
				continue
			}
			g.tallies = append(g.tallies, t)
			for n, count := range g.nodes {
				t.add(n, count)
			}
		}
	}
	return &t.Tally
}

// DomainName names a domain for users: "zone a" for the label topology.kubernetes.io/zone, "host a"
// for kubernetes.io/hostname, "example.com/rack a" for others.
func DomainName(key, value string) string {
	switch key {
	case core.LabelHostname:
		key = "host"
	case core.LabelZone:
		key = "zone"
	}
	return key + " " + value
}
