package framework

import (
	"slices"
)

// Verdict is how one node fares for a pod.
type Verdict struct {
	// Node is the node's name.
	Node string
	// RefusedBy is the plug-in that refused the node and Reason why; both are empty when the node
	// would do.
	RefusedBy, Reason string
	// Scores are in the order of the plug-ins; nil when refused.
	Scores []Score
	// Total is the weighted mean of the scores, 0 to MaxScore.
	Total float64
}

// Score is one plug-in's rating, 0 to MaxScore, with its weight in the mean.
type Score struct {
	// Name is the plug-in's name.
	Name string
	// Score is the rating and Weight its weight.
	Score, Weight float64
}

// Explain returns how every node fares for a pod: those that would do, the best first, then the
// refused ones by name. It runs the plug-ins that Schedule runs. A pod that the snapshot counts on
// a node is rated as one more.
func (f *Profile) Explain(s *Snapshot, p *Pod) []Verdict {
	filters := f.preFilter(s, p)
	var feasible []*Node
	var refused []Verdict
	for _, n := range s.Nodes {
		if by, _ := refusal(filters, n); by != nil {
			refused = append(refused, Verdict{Node: n.Name, RefusedBy: by.plugin, Reason: by.Explain(n)})
			continue
		}
		feasible = append(feasible, n)
	}
	if len(feasible) == 0 {
		return refused
	}
	scorers := f.preScore(p, feasible)
	ratings := make(map[*Node]float64, len(feasible))
	for _, n := range feasible {
		ratings[n] = f.rate(scorers, n)
	}
	slices.SortFunc(feasible, func(a, b *Node) int { return compareRated(ratings[a], a, ratings[b], b) })
	verdicts := make([]Verdict, 0, len(s.Nodes))
	for _, n := range feasible {
		v := Verdict{Node: n.Name, Total: ratings[n]}
		for i, w := range f.plugins.PreScore {
			v.Scores = append(v.Scores, Score{w.Plugin.Name(), scorers[i].Score(n), w.Weight})
		}
		verdicts = append(verdicts, v)
	}
	return append(verdicts, refused...)
}
