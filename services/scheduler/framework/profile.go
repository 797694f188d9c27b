package framework

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Profile is a set of plug-ins, and runs them. It may be used concurrently, as far as its Reserve
// and Bind plug-ins may.
type Profile struct {
	plugins Plugins
	hints   map[string][]EventHint // by the plug-in's name
}

// Plugins are the plug-ins of a profile, by extension point.
type Plugins struct {
	// PreFilter holds the filters in the order in which they look at a node; the first refusal counts.
	PreFilter []PreFilterPlugin
	// PostFilter makes room for pods that no node can run; nil when nothing does.
	PostFilter PostFilterPlugin
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
	return f
}

// Schedule returns the best node for a pod, or a *FitError. Among nodes with the same rating it
// takes the one with fewest pods, then the first by name, so that a decision can be repeated. The
// nominated node of the pod goes before all others.
func (f *Profile) Schedule(s *Snapshot, p *Pod) (string, error) {
	c := f.Begin(s, p)
	node, unfit := f.place(c)
	if unfit == nil {
		return node, nil
	}
	if f.plugins.PostFilter != nil && unfit.Nodes > 0 {
		room := f.plugins.PostFilter.PostFilter(c)
		unfit.Room = &room
	}
	return "", unfit
}

// Place is Schedule without preemption: no room is made for a pod that fits on no node.
func (f *Profile) Place(s *Snapshot, p *Pod) (string, *FitError) { return f.place(f.Begin(s, p)) }

func (f *Profile) place(c *Cycle) (string, *FitError) {
	s, p := c.snapshot, c.pod
	if n := s.NominatedNode(p.UID); n != nil && c.passes(n) {
		return n.Name, nil
	}
	feasible, unfit := c.feasible()
	if unfit != nil {
		return "", unfit
	}
	if len(feasible) == 1 {
		return feasible[0].Name, nil
	}
	rater := f.preScore(s, p, feasible)
	best, rating := feasible[0], rater.rate(0, feasible[0])
	for i, n := range feasible[1:] {
		if r := rater.rate(i+1, n); compareRated(r, n, rating, best) < 0 {
			best, rating = n, r
		}
	}
	return best.Name, nil
}

// rater holds the scorers of one cycle.
type rater struct {
	scorers []scorer
	weights float64 // the sum
}

// scorer is the scorer of one plug-in in one cycle.
type scorer struct {
	NodeScorer
	plugin string
	weight float64
}

// preScore runs PreScore. Plug-ins without a preference do not count.
func (f *Profile) preScore(s *Snapshot, p *Pod, feasible []*Node) rater {
	r := rater{scorers: make([]scorer, 0, len(f.plugins.PreScore))}
	for _, w := range f.plugins.PreScore {
		if ns := w.Plugin.PreScore(s, p, feasible); ns != nil {
			r.scorers = append(r.scorers, scorer{ns, w.Plugin.Name(), w.Weight})
			r.weights += w.Weight
		}
	}
	return r
}

// rate returns the weighted mean of a node's scores, rounded so that the order of the additions
// decides nothing; 0 when there are no scorers.
func (r rater) rate(i int, n *Node) float64 {
	if r.weights == 0 {
		return 0
	}
	total := 0.0
	for _, s := range r.scorers {
		total += s.weight * s.Score(i, n)
	}
	return math.Round(total/r.weights*1e9) / 1e9
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
