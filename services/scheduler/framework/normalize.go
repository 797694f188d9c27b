package framework

// Scores are ratings of the feasible nodes in their order. They implement NodeScorer.
type Scores []float64

// Score implements NodeScorer.
func (s Scores) Score(i int, _ *Node) float64 { return s[i] }

// Proportional rates nodes by an amount that is not negative: MaxScore for the node with the most,
// the others in proportion; all 0 when none has any.
func Proportional(feasible []*Node, amount func(*Node) int) Scores {
	scores, most := rawScores(feasible, amount)
	if most > 0 {
		for i := range scores {
			scores[i] = MaxScore * scores[i] / most
		}
	}
	return scores
}

// InverseProportional rates nodes by an amount that is not negative, the less the better: 0 for the
// node with the most, MaxScore for those with none.
func InverseProportional(feasible []*Node, amount func(*Node) int) Scores {
	scores, most := rawScores(feasible, amount)
	for i := range scores {
		if most > 0 {
			scores[i] = MaxScore * (most - scores[i]) / most
		} else {
			scores[i] = MaxScore
		}
	}
	return scores
}

func rawScores(feasible []*Node, amount func(*Node) int) (scores Scores, most float64) {
	scores = make(Scores, len(feasible))
	for i, n := range feasible {
		scores[i] = float64(amount(n))
		most = max(most, scores[i])
	}
	return scores, most
}
