package framework

import (
	"fmt"
	"slices"
	"strings"
)

// Cycle holds the filters of one pod for one scheduling cycle. It is valid until the next one
// begins, or the cache that its snapshot is of changes.
type Cycle struct {
	snapshot *Snapshot
	pod      *Pod
	filters  []filter
	names    []string // of the only nodes that may pass, if named is not empty
	named    []string // the plug-ins that know these names

	preemptible []*Node // refused, but may pass with fewer pods
}

// filter is the filter of one plug-in in one cycle.
type filter struct {
	NodeFilter
	plugin  string
	refused bool // a node, in this cycle
}

// Begin runs PreFilter.
func (f *Profile) Begin(s *Snapshot, p *Pod) *Cycle {
	s.pods.trim()
	c := &Cycle{snapshot: s, pod: p, filters: make([]filter, 0, len(f.plugins.PreFilter))}
	for _, pl := range f.plugins.PreFilter {
		nf := pl.PreFilter(s, p)
		if nf == nil {
			continue
		}
		c.filters = append(c.filters, filter{NodeFilter: nf, plugin: pl.Name()})
		namer, ok := nf.(NodeNamer)
		if !ok {
			continue
		}
		if names, ok := namer.NodeNames(); ok {
			if len(c.named) > 0 {
				names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(c.names, n) })
			}
			c.names, c.named = names, append(c.named, pl.Name())
		}
	}
	return c
}

// Nodes returns the nodes that may pass: all, unless the pod names some.
func (c *Cycle) Nodes() []*Node {
	if len(c.named) == 0 {
		return c.snapshot.Nodes
	}
	nodes := make([]*Node, 0, len(c.names))
	for _, name := range c.names {
		if n := c.snapshot.Node(name); n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Refusal returns the plug-in that refuses a node and the reasons as events count them; empty when
// the node would do.
func (c *Cycle) Refusal(n *Node) (plugin string, reasons []string) {
	if by, reasons := c.refusal(n, false); by != nil {
		return by.plugin, reasons
	}
	return "", nil
}

// Pod returns the pod that the cycle is for.
func (c *Cycle) Pod() *Pod { return c.pod }

// Snapshot returns the cluster as the cycle sees it, without the pods that were removed.
func (c *Cycle) Snapshot() *Snapshot { return c.snapshot }

// Preemptible returns the nodes that were refused and may pass with fewer pods.
func (c *Cycle) Preemptible() []*Node { return c.preemptible }

// refusal returns the filter that refuses a node, and why: as events count it, or in full. The node
// must do with the pods that are nominated for it and do not have a lower priority, and also
// without them, since they may end up elsewhere and the pod may need them near.
func (c *Cycle) refusal(n *Node, inFull bool) (by *filter, reasons []string) {
	var ahead []*Pod
	for _, p := range n.Nominated {
		if p.UID != c.pod.UID && p.Priority >= c.pod.Priority {
			ahead = append(ahead, p)
		}
	}
	if len(ahead) == 0 {
		return c.filter(n, inFull)
	}
	for _, p := range ahead {
		c.AddPod(n, p)
	}
	by, reasons = c.filter(n, inFull)
	for _, p := range ahead {
		c.RemovePod(n, p)
	}
	if by != nil {
		return by, reasons
	}
	return c.filter(n, inFull)
}

// filter looks at a node with the pods that are on it.
func (c *Cycle) filter(n *Node, inFull bool) (by *filter, reasons []string) {
	for i := range c.filters {
		f := &c.filters[i]
		reasons := f.Filter(n)
		if len(reasons) == 0 {
			continue
		}
		if inFull {
			reasons = []string{f.Explain(n)}
		}
		return f, reasons
	}
	return nil, nil
}

// look is refusal for each node once, which finds those that may pass with fewer pods.
func (c *Cycle) look(n *Node, inFull bool) (by *filter, reasons []string) {
	by, reasons = c.refusal(n, inFull)
	if by != nil {
		if p, ok := by.NodeFilter.(Preemptible); ok && p.MayPass(n) {
			c.preemptible = append(c.preemptible, n)
		}
	}
	return by, reasons
}

// passes reports whether a node that exists can run the pod.
func (c *Cycle) passes(n *Node) bool {
	if _, exists := c.snapshot.Find(n.Name); !exists {
		return false
	}
	by, _ := c.refusal(n, false)
	return by == nil
}

// RemovePod takes a pod off a node, so that Refusal answers as if it were not there. The caller
// undoes that by AddPod before the snapshot is used for something else.
func (c *Cycle) RemovePod(n *Node, p *Pod) {
	c.snapshot.RemovePod(n, p)
	c.moved(n, p, -1)
}

// AddPod puts a pod back that RemovePod took off. Of the pods that never were there, only those
// that are nominated for a node can be added: the index keeps the entries of their terms.
func (c *Cycle) AddPod(n *Node, p *Pod) {
	c.snapshot.AddPod(n, p)
	c.moved(n, p, 1)
}

func (c *Cycle) moved(n *Node, p *Pod, by int) {
	for i := range c.filters {
		if counter, ok := c.filters[i].NodeFilter.(PodCounter); ok {
			counter.CountPod(n, p, by)
		}
	}
}

// feasible returns the nodes that pass all filters, or why there is none.
func (c *Cycle) feasible() ([]*Node, *FitError) {
	nodes := c.Nodes()
	feasible := make([]*Node, 0, len(nodes))
	counts := map[string]int{}
	for _, n := range nodes {
		by, reasons := c.look(n, false)
		if by == nil {
			feasible = append(feasible, n)
			continue
		}
		by.refused = true
		for _, reason := range reasons {
			counts[reason]++
		}
	}
	if len(feasible) > 0 {
		return feasible, nil
	}
	unfit := &FitError{Nodes: len(c.snapshot.Nodes), Reasons: counts}
	if others := unfit.Nodes - len(nodes); others > 0 {
		counts[fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", c.named)] = others
		unfit.Conflict = len(c.names) == 0
	}
	for _, f := range c.filters {
		if f.refused || slices.Contains(c.named, f.plugin) {
			unfit.Plugins = append(unfit.Plugins, f.plugin)
		}
	}
	return nil, unfit
}

// FitError says why a pod fits on no node.
type FitError struct {
	// Nodes is how many nodes there are.
	Nodes int
	// Reasons counts the nodes by the reason of their refusal; one that lacks two resources counts for
	// both.
	Reasons map[string]int
	// Conflict says that the pod names nodes, and that the names exclude each other.
	Conflict bool
	// Room is what preemption does for the pod; nil without preemption.
	Room *Room
	// Plugins are the names of the plug-ins that refused a node, in their order; empty when there are
	// no nodes.
	Plugins []string
}

// Error returns the sentence that Kubernetes' users know from FailedScheduling events.
func (e *FitError) Error() string {
	if e.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	text := Unavailable(e.Nodes, e.Reasons)
	if e.Conflict {
		text = fmt.Sprintf("0/%d nodes are available: pod affinity terms conflict.", e.Nodes)
	}
	if e.Room != nil && e.Room.Reason != "" {
		text += " preemption: " + e.Room.Reason
	}
	return text
}

// Unavailable says why none of the nodes will do, with the number of nodes for each reason.
func Unavailable(nodes int, reasons map[string]int) string {
	parts := make([]string, 0, len(reasons))
	for reason, n := range reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(parts, ", "))
}
