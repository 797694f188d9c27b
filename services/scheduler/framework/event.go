package framework

// EventKind is a set of kinds of changes in the cluster.
type EventKind uint32

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
	// NodeDeleted is a node that does not exist any more.
	NodeDeleted
	// PodAdded is a pod that is bound to a node.
	PodAdded
	// PodLabelsChanged is a change of the labels of a pod on a node, or the begin of its deletion.
	PodLabelsChanged
	// PodRemoved is a pod that left its node: deleted, finished, or not bound after all.
	PodRemoved
	// PodShrunk is a pod on a node that takes less of something than before, or other host ports.
	PodShrunk
	// NamespaceChanged is a new namespace, or a change of the labels of one.
	NamespaceChanged
)

// Event is one change of the cluster.
type Event struct {
	// Kind is what changed; 0 when nothing did that could help a pod.
	Kind EventKind
	// Node is the node that changed, or that the pod is on, as it is after the event; nil when it does
	// not exist.
	Node *Node
	// WasLabels are the labels that the node had before it changed or was deleted.
	WasLabels map[string]string
	// Pod is the pod that changed as it is after the event, nil when it left its node, and WasPod as
	// it was, nil when it was not there.
	Pod, WasPod *Pod
	// Namespace is the name of the namespace that changed.
	Namespace string
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
