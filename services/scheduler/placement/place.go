package placement

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/kind"
)

// Refusals says why a pod fits nowhere.
type Refusals struct {
	// Nodes is how many nodes there are.
	Nodes int
	// Reasons counts the nodes by the reason of their refusal; one that lacks two resources counts for both.
	Reasons map[string]int
	// Filters are the names of the filters that refused at least one node.
	Filters []string
}

// Error is the sentence that Kubernetes' users know from FailedScheduling events.
func (r *Refusals) Error() string {
	if r.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	parts := make([]string, 0, len(r.Reasons))
	for reason, n := range r.Reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", r.Nodes, strings.Join(parts, ", "))
}

// Choose returns the best node for a pod, or a *Refusals. Of equals it takes the one with fewest pods, then the first by
// name, so that a decision can be repeated.
func (s *State) Choose(p *Pod) (string, error) {
	fit, refusals := s.fitting(p)
	if len(fit) == 0 {
		return "", refusals
	}
	f := fleetOf(p, fit)
	var chosen *node
	var top float64
	for _, n := range fit {
		if total := rate(p, n, f); chosen == nil || compareRated(total, n, top, chosen) < 0 {
			chosen, top = n, total
		}
	}
	return chosen.name, nil
}

// rate is the weighted mean of a node's scores, rounded so that the order of the additions decides nothing.
func rate(p *Pod, n *node, f *fleet) float64 {
	total, weights := 0.0, 0.0
	for _, sc := range scorers {
		total += sc.weight * sc.score(p, n, f)
		weights += sc.weight
	}
	return math.Round(total/weights*1e9) / 1e9
}

// compareRated orders nodes the best first: by score, then those with fewer pods, then by name.
func compareRated(a float64, an *node, b float64, bn *node) int {
	return cmp.Or(cmp.Compare(b, a), cmp.Compare(an.used[kind.ResourcePods], bn.used[kind.ResourcePods]), strings.Compare(an.name, bn.name))
}

// fitting returns the nodes that no filter refuses, and when there is none, why.
func (s *State) fitting(p *Pod) ([]*node, *Refusals) {
	fit := make([]*node, 0, len(s.order))
	reasons, names := map[string]int{}, map[string]bool{}
nodes:
	for _, n := range s.order {
		for _, f := range filters {
			if short, _ := f.refuse(p, n); len(short) > 0 {
				for _, reason := range short {
					reasons[reason]++
				}
				names[f.name] = true
				continue nodes
			}
		}
		fit = append(fit, n)
	}
	if len(fit) > 0 {
		return fit, nil
	}
	return nil, &Refusals{Nodes: len(s.order), Reasons: reasons, Filters: slices.Sorted(maps.Keys(names))}
}

func fleetOf(p *Pod, nodes []*node) *fleet {
	f := &fleet{}
	if p.siblings != "" {
		for _, n := range nodes {
			f.mostSiblings = max(f.mostSiblings, n.siblings[p.siblings])
		}
	}
	return f
}

// Verdict is how one node fares for a pod.
type Verdict struct {
	Node string
	// RefusedBy is the filter that refused the node and Reason why; both are empty when it would do.
	RefusedBy, Reason string
	// Scores are in the order of the scorers; nil when refused.
	Scores []Score
	// Total is the weighted mean of the scores, 0 to 10.
	Total float64
}

// Score is one scorer's mark, 0 to 10, with its weight in the mean.
type Score struct {
	Name          string
	Score, Weight float64
}

// Explain returns how every node fares for a pod, the best first, then those refused, by name. A pod that is on a node
// already is rated as if it were not.
func (s *State) Explain(p *Pod) []Verdict {
	if on := s.On(p.UID); on != "" {
		placed := s.pods[p.UID]
		s.Remove(p.UID)
		defer s.Place(placed, on)
	}
	fit, _ := s.fitting(p)
	f := fleetOf(p, fit)
	verdicts := make([]Verdict, 0, len(s.order))
	for _, n := range s.order {
		verdicts = append(verdicts, judge(p, n, f))
	}
	slices.SortStableFunc(verdicts, func(a, b Verdict) int {
		if (a.RefusedBy == "") != (b.RefusedBy == "") {
			if a.RefusedBy == "" {
				return -1
			}
			return 1
		}
		if a.RefusedBy != "" {
			return strings.Compare(a.Node, b.Node)
		}
		return compareRated(a.Total, s.nodes[a.Node], b.Total, s.nodes[b.Node])
	})
	return verdicts
}

func judge(p *Pod, n *node, f *fleet) Verdict {
	v := Verdict{Node: n.name}
	for _, filter := range filters {
		if short, full := filter.refuse(p, n); len(short) > 0 {
			v.RefusedBy, v.Reason = filter.name, full
			return v
		}
	}
	for _, sc := range scorers {
		v.Scores = append(v.Scores, Score{sc.name, sc.score(p, n, f), sc.weight})
	}
	v.Total = rate(p, n, f)
	return v
}
