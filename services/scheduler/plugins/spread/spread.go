// Package spread prefers nodes with fewer pods of the same controller, so that a node that fails
// takes few of them.
package spread

import "github.com/xebec-project/xebec/services/scheduler/framework"

// Name is the plug-in's name.
const Name = "Spread"

// Plugin rates nodes by how many pods of the pod's controller they have, compared with the node
// that has the most.
type Plugin struct{}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// PreScore implements framework.PreScorePlugin.
func (Plugin) PreScore(_ *framework.Snapshot, p *framework.Pod, feasible []*framework.Node) framework.NodeScorer {
	s := scorer{controller: p.Controller}
	if p.Controller != "" {
		for _, n := range feasible {
			s.most = max(s.most, n.Controllers[p.Controller])
		}
	}
	return s
}

type scorer struct {
	controller string
	most       int // pods of the controller on one node
}

// Score implements framework.NodeScorer.
func (s scorer) Score(_ int, n *framework.Node) float64 {
	if s.most == 0 {
		return framework.MaxScore
	}
	return framework.MaxScore * float64(s.most-n.Controllers[s.controller]) / float64(s.most)
}
