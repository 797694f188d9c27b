// Package nodeports refuses nodes on which a port of the pod is taken.
package nodeports

import (
	"fmt"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is the plug-in's name.
const Name = "NodePorts"

// Plugin refuses nodes where another pod has one of the pod's host ports.
type Plugin struct{}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// EventsToRegister implements framework.PreFilterPlugin.
func (pl Plugin) EventsToRegister() []framework.EventHint {
	return []framework.EventHint{framework.NodeLocal(framework.NodeAdded|framework.PodRemoved|framework.PodShrunk, pl)}
}

// PreFilter implements framework.PreFilterPlugin.
func (Plugin) PreFilter(_ *framework.Snapshot, p *framework.Pod) framework.NodeFilter {
	if len(p.HostPorts) == 0 {
		return nil
	}
	return filter(p.HostPorts)
}

// filter holds the pod's ports.
type filter []framework.HostPort

// taken returns the first of the pod's ports that is taken.
func (f filter) taken(n *framework.Node) (port framework.HostPort, ok bool) {
	for _, want := range f {
		for used := range n.HostPorts {
			if want.Conflicts(used) {
				return want, true
			}
		}
	}
	return framework.HostPort{}, false
}

var reasons = []string{"node(s) didn't have free ports for the requested pod ports"}

// Filter implements framework.NodeFilter.
func (f filter) Filter(n *framework.Node) []string {
	if _, ok := f.taken(n); ok {
		return reasons
	}
	return nil
}

// MayPass implements framework.Preemptible.
func (filter) MayPass(*framework.Node) bool { return true }

// Explain implements framework.NodeFilter.
func (f filter) Explain(n *framework.Node) string {
	port, _ := f.taken(n)
	return fmt.Sprintf("host port %d/%s is taken", port.Port, port.Protocol)
}
