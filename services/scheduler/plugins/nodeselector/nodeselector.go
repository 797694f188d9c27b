// Package nodeselector refuses nodes without the labels that a pod selects by spec.nodeSelector.
package nodeselector

import (
	"fmt"
	"maps"
	"slices"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is the plug-in's name.
const Name = "NodeSelector"

// Plugin refuses nodes that lack a label of the pod's node selector.
type Plugin struct{}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// EventsToRegister implements framework.PreFilterPlugin.
func (pl Plugin) EventsToRegister() []framework.EventHint {
	return []framework.EventHint{framework.NodeLocal(framework.NodeAdded|framework.NodeLabelsChanged, pl)}
}

// PreFilter implements framework.PreFilterPlugin.
func (Plugin) PreFilter(_ *framework.Snapshot, p *framework.Pod) framework.NodeFilter {
	if len(p.NodeSelector) == 0 {
		return nil
	}
	f := make(filter, 0, len(p.NodeSelector))
	for _, key := range slices.Sorted(maps.Keys(p.NodeSelector)) {
		f = append(f, label{key, p.NodeSelector[key]})
	}
	return f
}

type label struct{ key, value string }

// filter holds the wanted labels, sorted.
type filter []label

var reasons = []string{"node(s) didn't match Pod's node affinity/selector"}

// Filter implements framework.NodeFilter.
func (f filter) Filter(n *framework.Node) []string {
	for _, want := range f {
		if value, ok := n.Labels[want.key]; !ok || value != want.value {
			return reasons
		}
	}
	return nil
}

// Explain implements framework.NodeFilter.
func (f filter) Explain(n *framework.Node) string {
	for _, want := range f {
		value, ok := n.Labels[want.key]
		switch {
		case !ok:
			return fmt.Sprintf("the pod wants label %s=%s, the node has no such label", want.key, want.value)
		case value != want.value:
			return fmt.Sprintf("the pod wants label %s=%s, the node has %q", want.key, want.value, value)
		}
	}
	return ""
}
