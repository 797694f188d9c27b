package podtopologyspread

import (
	"math"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// PreScore implements framework.PreScorePlugin. As in Kubernetes, a node's raw score is the number
// of pods in its domains, those of topologies with more domains weighing more, and the best node is
// the one with the least.
func (pl Plugin) PreScore(s *framework.Snapshot, p *framework.Pod, feasible []*framework.Node) framework.NodeScorer {
	all := pl.constraints(s, p, false)
	if len(all) == 0 {
		return nil
	}
	allKeys := len(p.Spread) > 0 || !pl.PartialTopologies
	counted := make([]bool, len(feasible))
	size := 0
	for i, n := range feasible {
		if counted[i] = !allKeys || hasAllKeys(all, n); counted[i] {
			size++
		}
	}
	sums := make([]float64, len(feasible))
	takesPart := func(n *framework.Node) bool { return !allKeys || len(all) == 1 || hasAllKeys(all, n) }
	for i := range all {
		addSkew(s, p, &all[i], feasible, counted, sums, takesPart, size)
	}
	return normalize(sums, counted)
}

// addSkew adds what a constraint says of each node.
func addSkew(s *framework.Snapshot, p *framework.Pod, c *constraint, feasible []*framework.Node, counted []bool, sums []float64,
	takesPart func(*framework.Node) bool, size int,
) {
	if c.TopologyKey == core.LabelHostname {
		weight := math.Log(float64(size + 2))
		for i, n := range feasible {
			if _, ok := n.Labels[c.TopologyKey]; ok && counted[i] {
				sums[i] += float64(c.on(n))*weight + float64(c.MaxSkew-1)
			}
		}
		return
	}
	domains := map[string]int{}
	for i, n := range feasible {
		if counted[i] {
			domains[n.Labels[c.TopologyKey]] = 0
		}
	}
	for _, n := range s.Nodes {
		on := c.on(n)
		if on == 0 {
			continue
		}
		value := n.Labels[c.TopologyKey]
		if count, candidate := domains[value]; candidate && takesPart(n) && c.eligible(p, n) {
			domains[value] = count + on
		}
	}
	weight := math.Log(float64(len(domains) + 2))
	for i, n := range feasible {
		if value, ok := n.Labels[c.TopologyKey]; ok && counted[i] {
			sums[i] += float64(domains[value])*weight + float64(c.MaxSkew-1)
		}
	}
}

// normalize turns sums into scores: the node with the least sum is the best, and nodes that do not
// count get 0.
func normalize(sums []float64, counted []bool) framework.Scores {
	low, high := math.Inf(1), 0.0
	for i, sum := range sums {
		if counted[i] {
			low, high = min(low, sum), max(high, sum)
		}
	}
	scores := make(framework.Scores, len(sums))
	for i, sum := range sums {
		switch {
		case !counted[i]:
		case high == 0:
			scores[i] = framework.MaxScore
		default:
			scores[i] = framework.MaxScore * (high + low - sum) / high
		}
	}
	return scores
}
