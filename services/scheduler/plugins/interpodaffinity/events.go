package interpodaffinity

import (
	"maps"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// EventsToRegister implements framework.PreFilterPlugin.
func (pl Plugin) EventsToRegister() []framework.EventHint {
	return []framework.EventHint{
		{Kind: framework.NodeAdded | framework.NodeLabelsChanged, Helps: pl.nodeHelps},
		{Kind: framework.PodAdded | framework.PodLabelsChanged | framework.PodRemoved, Helps: podHelps},
		{Kind: framework.NamespaceChanged, Helps: namespaceHelps},
	}
}

// nodeHelps reports whether a node is one for the pod. A node with pods may help on other nodes,
// because its pods have come into another domain.
func (pl Plugin) nodeHelps(s *framework.Snapshot, p *framework.Pod, e framework.Event) bool {
	if len(e.Node.Pods) > 0 && !maps.Equal(e.WasLabels, e.Node.Labels) {
		return true
	}
	f := pl.PreFilter(s, p)
	return f == nil || len(f.Filter(e.Node)) == 0
}

// podHelps reports whether a pod that came is wanted nearby, or one that left was not. The last pod
// that matches an affinity helps by leaving too, when the pod has affinity to itself.
func podHelps(s *framework.Snapshot, p *framework.Pod, e framework.Event) bool {
	if e.Pod != nil && wants(s, p, e.Pod) && (e.WasPod == nil || e.Kind&framework.PodAdded != 0 || !wants(s, p, e.WasPod)) {
		return true
	}
	if e.WasPod == nil {
		return false
	}
	if wants(s, p, e.WasPod) && (e.Pod == nil || !wants(s, p, e.Pod)) {
		return true
	}
	return avoids(s, p, e.WasPod) && (e.Pod == nil || e.Kind&framework.PodRemoved != 0 || !avoids(s, p, e.Pod))
}

// wants reports whether the affinity of a pod chooses another.
func wants(s *framework.Snapshot, p, other *framework.Pod) bool {
	for _, t := range p.Terms[framework.Affinity] {
		if !t.Matches(s, other) {
			return false
		}
	}
	return len(p.Terms[framework.Affinity]) > 0
}

// avoids reports whether one of two pods has anti-affinity to the other.
func avoids(s *framework.Snapshot, a, b *framework.Pod) bool {
	for _, t := range a.Terms[framework.AntiAffinity] {
		if t.Matches(s, b) {
			return true
		}
	}
	for _, t := range b.Terms[framework.AntiAffinity] {
		if t.Matches(s, a) {
			return true
		}
	}
	return false
}

// namespaceHelps reports whether the labels of namespaces decide about the pod. Those of its own
// namespace decide for terms of other pods.
func namespaceHelps(_ *framework.Snapshot, p *framework.Pod, e framework.Event) bool {
	if e.Namespace == p.Namespace {
		return true
	}
	for _, kind := range []framework.TermKind{framework.Affinity, framework.AntiAffinity} {
		for _, t := range p.Terms[kind] {
			if t.UsesNamespaceLabels() {
				return true
			}
		}
	}
	return false
}
