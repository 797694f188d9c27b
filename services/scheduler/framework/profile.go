package framework

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Profile is a set of plug-ins, and runs them. It may be used concurrently, as far as its Reserve
// and Bind plug-ins may.
type Profile struct {
	plugins Plugins
	hints   map[string][]EventHint // by the plug-in's name
	weights float64                // the sum
}

// Plugins are the plug-ins of a profile, by extension point.
type Plugins struct {
	// PreFilter holds the filters in the order in which they look at a node; the first refusal counts.
	PreFilter []PreFilterPlugin
	// PreScore holds the scorers; a node's rating is the weighted mean of their scores.
	PreScore []WeightedPlugin
	// Reserve holds those that set something aside for a pod. It may be empty where nothing is bound.
	Reserve []ReservePlugin
}

// WeightedPlugin is a scorer with its weight in the mean, which is more than zero.
type WeightedPlugin struct {
	// Plugin is the scorer.
	Plugin PreScorePlugin
	// Weight is its weight.
	Weight float64
}

// NewProfile returns a profile with these plug-ins.
func NewProfile(plugins Plugins) *Profile {
	f := &Profile{plugins: plugins, hints: map[string][]EventHint{}}
	for _, pl := range plugins.PreFilter {
		f.hints[pl.Name()] = pl.EventsToRegister()
	}
	for _, w := range plugins.PreScore {
		f.weights += w.Weight
	}
	return f
}

// FitError says why a pod fits on no node.
type FitError struct {
	// Nodes is how many nodes there are.
	Nodes int
	// Reasons counts the nodes by the reason of their refusal; one that lacks two resources counts for
	// both.
	Reasons map[string]int
	// Plugins are the names of the plug-ins that refused a node, in their order; empty when there are
	// no nodes.
	Plugins []string
}

// Error returns the sentence that Kubernetes' users know from FailedScheduling events.
func (e *FitError) Error() string {
	if e.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	parts := make([]string, 0, len(e.Reasons))
	for reason, n := range e.Reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", e.Nodes, strings.Join(parts, ", "))
}

// Schedule returns the best node for a pod, or a *FitError. Among nodes with the same rating it
// takes the one with fewest pods, then the first by name, so that a decision can be repeated.
func (f *Profile) Schedule(s *Snapshot, p *Pod) (string, error) {
	feasible, unfit := f.filter(s, p)
	if unfit != nil {
		return "", unfit
	}
	scorers := f.preScore(p, feasible)
	best, rating := feasible[0], f.rate(scorers, feasible[0])
	for _, n := range feasible[1:] {
		if r := f.rate(scorers, n); compareRated(r, n, rating, best) < 0 {
			best, rating = n, r
		}
	}
	return best.Name, nil
}

// filter is the filter of one plug-in in one cycle.
type filter struct {
	NodeFilter
	plugin  string
	refused bool // a node, in this cycle
}

// preFilter runs PreFilter.
func (f *Profile) preFilter(s *Snapshot, p *Pod) []filter {
	filters := make([]filter, 0, len(f.plugins.PreFilter))
	for _, pl := range f.plugins.PreFilter {
		if nf := pl.PreFilter(s, p); nf != nil {
			filters = append(filters, filter{NodeFilter: nf, plugin: pl.Name()})
		}
	}
	return filters
}

// refusal returns the filter that refuses a node, with its reasons; nil when none does.
func refusal(filters []filter, n *Node) (by *filter, reasons []string) {
	for i := range filters {
		if reasons := filters[i].Filter(n); len(reasons) > 0 {
			return &filters[i], reasons
		}
	}
	return nil, nil
}

// filter returns the nodes that pass all filters, or why there is none.
func (f *Profile) filter(s *Snapshot, p *Pod) ([]*Node, *FitError) {
	filters := f.preFilter(s, p)
	feasible := make([]*Node, 0, len(s.Nodes))
	counts := map[string]int{}
	for _, n := range s.Nodes {
		by, reasons := refusal(filters, n)
		if by == nil {
			feasible = append(feasible, n)
			continue
		}
		by.refused = true
		for _, reason := range reasons {
			counts[reason]++
		}
	}
	if len(feasible) > 0 {
		return feasible, nil
	}
	unfit := &FitError{Nodes: len(s.Nodes), Reasons: counts}
	for _, f := range filters {
		if f.refused {
			unfit.Plugins = append(unfit.Plugins, f.plugin)
		}
	}
	return nil, unfit
}

// preScore runs PreScore.
func (f *Profile) preScore(p *Pod, feasible []*Node) []NodeScorer {
	scorers := make([]NodeScorer, len(f.plugins.PreScore))
	for i, w := range f.plugins.PreScore {
		scorers[i] = w.Plugin.PreScore(p, feasible)
	}
	return scorers
}

// rate returns the weighted mean of a node's scores, rounded so that the order of the additions
// decides nothing.
func (f *Profile) rate(scorers []NodeScorer, n *Node) float64 {
	total := 0.0
	for i, s := range scorers {
		total += f.plugins.PreScore[i].Weight * s.Score(n)
	}
	return math.Round(total/f.weights*1e9) / 1e9
}

// compareRated orders nodes, the best first: by rating, then those with fewer pods, then by name.
func compareRated(a float64, an *Node, b float64, bn *Node) int {
	if c := cmp.Compare(b, a); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(an.Used[Pods], bn.Used[Pods]), strings.Compare(an.Name, bn.Name))
}

// Reserve runs the Reserve plug-ins in their order. When one fails, it undoes what the plug-ins
// have done and returns the error.
func (f *Profile) Reserve(a Assignment) error {
	for i, pl := range f.plugins.Reserve {
		if err := pl.Reserve(a); err != nil {
			f.unreserve(a, i)
			return err
		}
	}
	return nil
}

// Unreserve undoes Reserve in the reverse order.
func (f *Profile) Unreserve(a Assignment) { f.unreserve(a, len(f.plugins.Reserve)) }

// unreserve undoes the first n plug-ins.
func (f *Profile) unreserve(a Assignment, n int) {
	for _, pl := range slices.Backward(f.plugins.Reserve[:n]) {
		pl.Unreserve(a)
	}
}

// Helps reports whether an event can let a pod fit that these plug-ins refused. Every event can
// help a pod that no plug-in refused: there were no nodes.
func (f *Profile) Helps(s *Snapshot, p *Pod, refusedBy []string, e Event) bool {
	if len(refusedBy) == 0 {
		return e.Kind != 0
	}
	for _, name := range refusedBy {
		for _, hint := range f.hints[name] {
			if hint.Kind&e.Kind != 0 && (hint.Helps == nil || hint.Helps(s, p, e)) {
				return true
			}
		}
	}
	return false
}
