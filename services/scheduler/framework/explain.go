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
	// Scores are in the order of the plug-ins, without those that do not prefer any node for the pod;
	// nil when refused.
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
func (f *Profile) Explain(s *Snapshot, p *Pod) ([]Verdict, *Room) {
	cycle := f.Begin(s, p)
	var feasible []*Node
	var refused []Verdict
	for _, n := range s.Nodes {
		if by, reasons := cycle.look(n, true); by != nil {
			refused = append(refused, Verdict{Node: n.Name, RefusedBy: by.plugin, Reason: reasons[0]})
			continue
		}
		feasible = append(feasible, n)
	}
	if len(feasible) == 0 {
		if f.plugins.PostFilter == nil || len(refused) == 0 {
			return refused, nil
		}
		room := f.plugins.PostFilter.PostFilter(cycle)
		return refused, &room
	}
	rater := f.preScore(s, p, feasible)
	type rated struct {
		node *Node
		Verdict
	}
	all := make([]rated, len(feasible))
	for i, n := range feasible {
		v := Verdict{Node: n.Name, Total: rater.rate(i, n)}
		for _, sc := range rater.scorers {
			v.Scores = append(v.Scores, Score{sc.plugin, sc.Score(i, n), sc.weight})
		}
		all[i] = rated{n, v}
	}
	slices.SortFunc(all, func(a, b rated) int { return compareRated(a.Total, a.node, b.Total, b.node) })
	verdicts := make([]Verdict, 0, len(s.Nodes))
	for _, r := range all {
		verdicts = append(verdicts, r.Verdict)
	}
	return append(verdicts, refused...), nil
}
