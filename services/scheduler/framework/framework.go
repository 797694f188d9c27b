// Package framework defines how the scheduler decides: the extension points at which plug-ins take
// part, what plug-ins see of pods and nodes, and the profile that runs them.
//
// The extension points are those of the Kubernetes scheduling framework. A cycle for one pod runs
// PreFilter once, Filter for each node, PreScore once with the nodes that passed, Score for each of
// these, and Reserve for the chosen node. The pod is bound later, together with others; Unreserve
// is called when that fails.
//
// Where Kubernetes hands plug-ins a map for the state of a cycle, PreFilter returns the filter of
// the pod and PreScore its scorer: a value with the state of the cycle inside, so that no plug-in
// looks anything up for each node.
package framework

import "context"

// Plugin is a plug-in with a name, which users see in events and in `xebec why`.
type Plugin interface {
	Name() string
}

// PreFilterPlugin refuses nodes for pods.
type PreFilterPlugin interface {
	Plugin
	// PreFilter returns the filter of one pod for one cycle, or nil when the plug-in refuses no node
	// for this pod.
	PreFilter(s *Snapshot, p *Pod) NodeFilter
	// EventsToRegister returns the events after which a pod that this plug-in refused may fit.
	EventsToRegister() []EventHint
}

// NodeFilter refuses nodes for the pod that it was made for.
type NodeFilter interface {
	// Filter returns why a node cannot run the pod, nil when it can. Each reason is as events count
	// it, and the same text for all nodes with the same reason. The caller must not change the slice.
	Filter(n *Node) []string
	// Explain returns the reason in full, with the node's figures. It is called for nodes that Filter
	// refused.
	Explain(n *Node) string
}

// NodeNamer is a NodeFilter that may know from the pod alone which nodes it can pass, so that only
// these are looked at.
type NodeNamer interface {
	// NodeNames returns the names of the only nodes that may pass; ok is false when each may.
	NodeNames() (names []string, ok bool)
}

// PodCounter is a NodeFilter that holds counts of pods of its own, besides those of the snapshot.
type PodCounter interface {
	// CountPod notes that a pod was put on a node, or taken off for -1.
	CountPod(n *Node, p *Pod, by int)
}

// Preemptible is a NodeFilter whose refusals can end when pods leave the node. What other filters
// refuse, preemption cannot change.
type Preemptible interface {
	// MayPass reports whether a node that the filter refuses might pass with fewer pods.
	MayPass(n *Node) bool
}

// PostFilterPlugin makes room for a pod that no node can run.
type PostFilterPlugin interface {
	Plugin
	// PostFilter decides, in the cycle in which all nodes were refused.
	PostFilter(c *Cycle) Room
}

// PreScorePlugin rates the nodes that passed all filters.
type PreScorePlugin interface {
	Plugin
	// PreScore returns the scorer of one pod for one cycle, or nil when the plug-in does not prefer
	// any node for this pod. feasible are the nodes that passed, at least one.
	PreScore(s *Snapshot, p *Pod, feasible []*Node) NodeScorer
}

// NodeScorer rates nodes for the pod that it was made for.
type NodeScorer interface {
	// Score returns a rating from 0 to MaxScore, the best, of the feasible node n, which is number i
	// of those that PreScore was given.
	Score(i int, n *Node) float64
}

// MaxScore is the best score; the worst is 0.
const MaxScore = 10.0

// ReservePlugin sets aside what a pod takes, from the moment its node is chosen until it is bound.
type ReservePlugin interface {
	// Reserve is called before the node of the next pod is chosen. After an error the pod is not
	// bound, but tried again.
	Reserve(a Assignment) error
	// Unreserve undoes Reserve when the pod was not bound, or when a later plug-in's Reserve failed.
	// It does nothing when the reservation has ended, because the pod was bound or deleted meanwhile.
	Unreserve(a Assignment)
}

// BindPlugin writes assignments to the API.
type BindPlugin interface {
	// Bind binds all pods of a batch or none. A pod that is bound to the same node already counts as
	// bound. The outcome is unknown after an error for which apierr.IsRetryable holds.
	Bind(ctx context.Context, batch []Assignment) error
	// IsBound reports whether a pod is bound to the node already.
	IsBound(ctx context.Context, a Assignment) (bool, error)
}

// Assignment is a pod with the node that was chosen for it.
type Assignment struct {
	// Pod is the pod as it was when the node was chosen.
	Pod *Pod
	// Node is the node's name.
	Node string
}
