package podtopologyspread

import (
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// EventsToRegister implements framework.PreFilterPlugin.
func (pl Plugin) EventsToRegister() []framework.EventHint {
	return []framework.EventHint{
		{Kind: framework.PodAdded | framework.PodLabelsChanged | framework.PodRemoved, Helps: pl.podHelps},
		{
			Kind:  framework.NodeAdded | framework.NodeLabelsChanged | framework.NodeTaintsChanged | framework.NodeDeleted,
			Helps: pl.nodeHelps,
		},
	}
}

// podHelps reports whether a pod that counts came or left.
func (pl Plugin) podHelps(s *framework.Snapshot, p *framework.Pod, e framework.Event) bool {
	for _, c := range pl.constraints(s, p, true) {
		is, was := e.Pod != nil && c.counts(e.Pod), e.WasPod != nil && c.counts(e.WasPod)
		if is != was || is && e.Kind&(framework.PodAdded|framework.PodRemoved) != 0 {
			return true
		}
	}
	return false
}

// nodeHelps reports whether a node is or was one of the domains, which changes their number or the
// fewest pods.
func (pl Plugin) nodeHelps(s *framework.Snapshot, p *framework.Pod, e framework.Event) bool {
	all := pl.constraints(s, p, true)
	if e.Node != nil && hasAllKeys(all, e.Node) {
		if e.Kind&^framework.NodeTaintsChanged != 0 {
			return true
		}
		for i := range all {
			if all[i].HonorTaints {
				return true
			}
		}
		return false
	}
	return hasAllKeys(all, &framework.Node{Labels: e.WasLabels})
}
