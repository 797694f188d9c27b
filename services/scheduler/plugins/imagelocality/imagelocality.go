// Package imagelocality prefers nodes that have the pod's images already.
package imagelocality

import "github.com/xebec-project/xebec/services/scheduler/framework"

// Name is the plug-in's name.
const Name = "ImageLocality"

// Plugin rates nodes by the share of the pod's images that they have.
type Plugin struct{}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// PreScore implements framework.PreScorePlugin.
func (Plugin) PreScore(_ *framework.Snapshot, p *framework.Pod, _ []*framework.Node) framework.NodeScorer {
	return scorer(p.Images)
}

// scorer holds the pod's images.
type scorer []string

// Score implements framework.NodeScorer.
func (s scorer) Score(_ int, n *framework.Node) float64 {
	if len(s) == 0 {
		return framework.MaxScore
	}
	held := 0
	for _, image := range s {
		if len(n.Images) > 0 && n.Images[image] {
			held++
		}
	}
	return framework.MaxScore * float64(held) / float64(len(s))
}
