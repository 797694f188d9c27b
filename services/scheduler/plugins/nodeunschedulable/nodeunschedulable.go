// Package nodeunschedulable refuses cordoned nodes.
package nodeunschedulable

import (
	"slices"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is the plug-in's name.
const Name = "NodeUnschedulable"

// Plugin refuses nodes with spec.unschedulable, unless the pod tolerates the taint that stands for
// it.
type Plugin struct{}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// EventsToRegister implements framework.PreFilterPlugin.
func (pl Plugin) EventsToRegister() []framework.EventHint {
	return []framework.EventHint{framework.NodeLocal(framework.NodeAdded|framework.NodeUnschedulableChanged, pl)}
}

// PreFilter implements framework.PreFilterPlugin.
func (Plugin) PreFilter(_ *framework.Snapshot, p *framework.Pod) framework.NodeFilter {
	taint := &corev1.Taint{Key: "node.kubernetes.io/unschedulable", Effect: "NoSchedule"}
	if slices.ContainsFunc(p.Tolerations, func(t *corev1.Toleration) bool { return core.Tolerates(t, taint) }) {
		return nil
	}
	return filter{}
}

type filter struct{}

var reasons = []string{"node(s) were unschedulable"}

// Filter implements framework.NodeFilter.
func (filter) Filter(n *framework.Node) []string {
	if n.Unschedulable {
		return reasons
	}
	return nil
}

// Explain implements framework.NodeFilter.
func (filter) Explain(*framework.Node) string { return "the node is cordoned (spec.unschedulable)" }
