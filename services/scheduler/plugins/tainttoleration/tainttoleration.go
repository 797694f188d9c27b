// Package tainttoleration refuses nodes with taints that a pod does not tolerate, and prefers those
// without PreferNoSchedule taints.
package tainttoleration

import (
	"fmt"
	"slices"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is the plug-in's name.
const Name = "TaintToleration"

// Taint effects, as Kubernetes names them.
const (
	noSchedule       = "NoSchedule"
	noExecute        = "NoExecute"
	preferNoSchedule = "PreferNoSchedule"
)

// Plugin refuses nodes with untolerated NoSchedule and NoExecute taints, and rates nodes by their
// untolerated PreferNoSchedule taints: the node with most of them gets 0, one without MaxScore.
type Plugin struct{}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// EventsToRegister implements framework.PreFilterPlugin.
func (pl Plugin) EventsToRegister() []framework.EventHint {
	return []framework.EventHint{framework.NodeLocal(framework.NodeAdded|framework.NodeTaintsChanged, pl)}
}

// PreFilter implements framework.PreFilterPlugin.
func (Plugin) PreFilter(_ *framework.Snapshot, p *framework.Pod) framework.NodeFilter {
	return tolerations(p.Tolerations)
}

// PreScore implements framework.PreScorePlugin.
func (Plugin) PreScore(_ *framework.Snapshot, p *framework.Pod, feasible []*framework.Node) framework.NodeScorer {
	if !slices.ContainsFunc(feasible, func(n *framework.Node) bool { return len(n.Taints) > 0 }) {
		return nil
	}
	ts := tolerations(p.Tolerations)
	return framework.InverseProportional(feasible, func(n *framework.Node) int {
		count := 0
		for _, taint := range n.Taints {
			if taint.GetEffect() == preferNoSchedule && !ts.tolerate(taint) {
				count++
			}
		}
		return count
	})
}

// tolerations are those of the pod.
type tolerations []*corev1.Toleration

func (ts tolerations) tolerate(taint *corev1.Taint) bool {
	return slices.ContainsFunc(ts, func(t *corev1.Toleration) bool { return core.Tolerates(t, taint) })
}

// untolerated returns the first taint that keeps the pod away, nil for none.
func (ts tolerations) untolerated(n *framework.Node) *corev1.Taint {
	for _, taint := range n.Taints {
		if effect := taint.GetEffect(); (effect == noSchedule || effect == noExecute) && !ts.tolerate(taint) {
			return taint
		}
	}
	return nil
}

var reasons = []string{"node(s) had untolerated taint(s)"}

// Filter implements framework.NodeFilter.
func (ts tolerations) Filter(n *framework.Node) []string {
	if taint := ts.untolerated(n); taint != nil {
		return reasons
	}
	return nil
}

// Explain implements framework.NodeFilter.
func (ts tolerations) Explain(n *framework.Node) string {
	taint := ts.untolerated(n)
	return fmt.Sprintf("%s, effect %s", describe(taint), taint.GetEffect())
}

func describe(taint *corev1.Taint) string {
	return "untolerated taint {" + taint.GetKey() + ": " + taint.GetValue() + "}"
}
