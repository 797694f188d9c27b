package framework

// EventKind is a set of kinds of changes in the cluster.
type EventKind uint16

// The changes that can let a pod fit.
const (
	// NodeAdded is a node that was not there before.
	NodeAdded EventKind = 1 << iota
	// NodeUnschedulableChanged is a change of spec.unschedulable.
	NodeUnschedulableChanged
	// NodeLabelsChanged is a change of a node's labels.
	NodeLabelsChanged
	// NodeTaintsChanged is a change of a node's taints.
	NodeTaintsChanged
	// NodeAllocatableChanged is a change of what a node offers to pods.
	NodeAllocatableChanged
	// PodRemoved is a pod that left its node: deleted, finished, or not bound after all.
	PodRemoved
	// PodShrunk is a pod on a node that takes less of something than before, or other host ports.
	PodShrunk
)

// Event is one change of the cluster.
type Event struct {
	// Kind is what changed; 0 when nothing did that could help a pod.
	Kind EventKind
	// Node is the node that changed, or that the pod is on, as it is after the event; nil when it does
	// not exist.
	Node *Node
}

// EventHint registers events with a plug-in, as a QueueingHint does in Kubernetes.
type EventHint struct {
	// Kind holds the kinds of event.
	Kind EventKind
	// Helps reports whether an event of one of these kinds can let a pod fit that the plug-in refused;
	// nil means that each can.
	Helps func(s *Snapshot, p *Pod, e Event) bool
}

// NodeLocal returns the hint of a filter whose verdict on a node depends on this node alone: an
// event helps when the filter passes the node that the event is about.
func NodeLocal(kind EventKind, pl PreFilterPlugin) EventHint {
	return EventHint{kind, func(s *Snapshot, p *Pod, e Event) bool {
		if e.Node == nil {
			return false
		}
		f := pl.PreFilter(s, p)
		return f == nil || len(f.Filter(e.Node)) == 0
	}}
}
