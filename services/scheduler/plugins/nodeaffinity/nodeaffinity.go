// Package nodeaffinity refuses nodes that do not match spec.nodeSelector or the required terms of
// the pod's node affinity, and prefers those that match the preferred terms.
package nodeaffinity

import (
	"github.com/xebec-project/xebec/internal/nodeaffinity"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is the plug-in's name.
const Name = "NodeAffinity"

// Plugin filters by the nodes that a pod requires, and rates nodes by the weights of the preferred
// terms that match.
type Plugin struct{}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// EventsToRegister implements framework.PreFilterPlugin.
func (pl Plugin) EventsToRegister() []framework.EventHint {
	return []framework.EventHint{framework.NodeLocal(framework.NodeAdded|framework.NodeLabelsChanged, pl)}
}

// PreFilter implements framework.PreFilterPlugin.
func (Plugin) PreFilter(_ *framework.Snapshot, p *framework.Pod) framework.NodeFilter {
	if p.RequiredNodes.All() {
		return nil
	}
	return filter{&p.RequiredNodes}
}

// filter holds what the pod requires.
type filter struct{ *nodeaffinity.Required }

var reasons = []string{"node(s) didn't match Pod's node affinity/selector"}

// Filter implements framework.NodeFilter.
func (f filter) Filter(n *framework.Node) []string {
	if f.Matches(n.Name, n.Labels) {
		return nil
	}
	return reasons
}

// Explain implements framework.NodeFilter.
func (f filter) Explain(n *framework.Node) string {
	return "the pod wants " + f.Unmet(n.Name, n.Labels)
}

// NodeNames implements framework.NodeNamer. A pod of a DaemonSet names its node.
func (f filter) NodeNames() (names []string, ok bool) { return f.Names() }

// PreScore implements framework.PreScorePlugin.
func (Plugin) PreScore(_ *framework.Snapshot, p *framework.Pod, feasible []*framework.Node) framework.NodeScorer {
	if len(p.PreferredNodes) == 0 {
		return nil
	}
	return framework.Proportional(feasible, func(n *framework.Node) int {
		sum := 0
		for _, t := range p.PreferredNodes {
			if t.Matches(n.Name, n.Labels) {
				sum += int(t.Weight)
			}
		}
		return sum
	})
}
