// Package interpodaffinity refuses nodes by the pods around them: those that the pod's affinity
// wants nearby, those that its anti-affinity wants elsewhere, and those whose anti-affinity wants
// this pod elsewhere. It prefers nodes by the preferred terms of both sides.
//
// The snapshot counts the pods by domain, so that a cycle looks at no pod.
package interpodaffinity

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is the plug-in's name.
const Name = "InterPodAffinity"

// DefaultHardPodAffinityWeight is the weight of the required affinity of other pods to the pod.
const DefaultHardPodAffinityWeight = 1

// Plugin filters by required terms and rates by preferred ones.
type Plugin struct {
	// HardPodAffinityWeight is what it is worth in the score when another pod's required affinity
	// chooses the pod, 0 to 100.
	HardPodAffinityWeight int
	// IgnorePreferredTermsOfExistingPods leaves preferred terms of other pods out of the score of pods
	// without such terms.
	IgnorePreferredTermsOfExistingPods bool
}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// PreFilter implements framework.PreFilterPlugin.
func (Plugin) PreFilter(s *framework.Snapshot, p *framework.Pod) framework.NodeFilter {
	f := &filter{pod: p}
	f.existing = slices.Collect(s.Carried(framework.AntiAffinity, p))
	near := p.Terms[framework.Affinity]
	if len(near) == 0 && len(p.Terms[framework.AntiAffinity]) == 0 && len(f.existing) == 0 {
		return nil
	}
	// One pod must match all terms of the affinity.
	all := make([]*framework.PodSelector, len(near))
	for i := range near {
		all[i] = near[i].PodSelector
	}
	f.self = !slices.ContainsFunc(all, func(t *framework.PodSelector) bool { return !t.Matches(s, p) })
	for i := range near {
		f.near = append(f.near, s.Tally(near[i].TopologyKey, all...))
	}
	for _, t := range p.Terms[framework.AntiAffinity] {
		f.apart = append(f.apart, s.Tally(t.TopologyKey, t.PodSelector))
	}
	slices.SortFunc(f.existing, func(a, b *framework.Carried) int {
		return cmp.Or(cmp.Compare(a.Tally.TopologyKey, b.Tally.TopologyKey), cmp.Compare(a.String(), b.String()))
	})
	return f
}

// filter holds the tallies of the terms that concern a pod.
type filter struct {
	pod      *framework.Pod
	near     []*framework.Tally // by the terms of its affinity
	self     bool               // the pod matches its own affinity
	apart    []*framework.Tally // by the terms of its anti-affinity
	existing []*framework.Carried
}

var (
	notNear  = []string{"node(s) didn't match pod affinity rules"}
	notApart = []string{"node(s) didn't match pod anti-affinity rules"}
	unwanted = []string{"node(s) didn't satisfy existing pods anti-affinity rules"}
)

// Filter implements framework.NodeFilter.
func (f *filter) Filter(n *framework.Node) []string {
	switch {
	case f.lacking(n) >= 0:
		return notNear
	case f.meeting(n) >= 0:
		return notApart
	case f.refusing(n) >= 0:
		return unwanted
	}
	return nil
}

// lacking returns the index of the first term of affinity that does not hold on a node, or -1.
func (f *filter) lacking(n *framework.Node) int {
	first := -1
	for i, t := range f.near {
		count, ok := t.Of(n)
		if !ok {
			return i
		}
		if count == 0 && first < 0 {
			first = i
		}
	}
	if first >= 0 && f.isFirst() {
		return -1
	}
	return first
}

// isFirst reports whether the pod is the first of a group with affinity to itself: no pod matches
// its affinity but itself. Such a pod needs only the topology labels.
func (f *filter) isFirst() bool {
	return f.self && !slices.ContainsFunc(f.near, func(t *framework.Tally) bool { return t.Total > 0 })
}

// meeting returns the index of the first term of anti-affinity that pods near a node match.
func (f *filter) meeting(n *framework.Node) int {
	return slices.IndexFunc(f.apart, func(t *framework.Tally) bool {
		count, _ := t.Of(n)
		return count > 0
	})
}

// refusing returns the index of the first term of other pods near a node that the pod matches.
func (f *filter) refusing(n *framework.Node) int {
	return slices.IndexFunc(f.existing, func(c *framework.Carried) bool {
		count, _ := c.Of(n)
		return count > 0
	})
}

// MayPass implements framework.Preemptible: no pod is missing nearby.
func (f *filter) MayPass(n *framework.Node) bool { return f.lacking(n) < 0 }

// Explain implements framework.NodeFilter.
func (f *filter) Explain(n *framework.Node) string {
	if i := f.lacking(n); i >= 0 {
		return explainLacking(f.pod.Terms[framework.Affinity], i, n, f.near[i].Total)
	}
	if i := f.meeting(n); i >= 0 {
		count, _ := f.apart[i].Of(n)
		t := f.pod.Terms[framework.AntiAffinity][i]
		return fmt.Sprintf("the pod's anti-affinity: %s has %s %s", domain(n, t.TopologyKey), pods(count), t)
	}
	c := f.existing[f.refusing(n)]
	count, _ := c.Of(n)
	return fmt.Sprintf("anti-affinity of other pods: %s has %s with anti-affinity to pods %s, which this pod is",
		domain(n, c.Tally.TopologyKey), pods(count), c.PodSelector)
}

func explainLacking(terms []framework.PodTerm, i int, n *framework.Node, elsewhere int) string {
	t := terms[i]
	if _, ok := n.Labels[t.TopologyKey]; !ok {
		return "the pod's affinity: the node has no label " + t.TopologyKey
	}
	text := fmt.Sprintf("the pod's affinity: %s does not have any pods %s", domain(n, t.TopologyKey), t)
	if len(terms) > 1 {
		text += fmt.Sprintf(", that match all %d terms", len(terms))
	}
	return text + fmt.Sprintf("; %s elsewhere", pods(elsewhere))
}

// domain names the domain of a node, such as "zone a" for the label topology.kubernetes.io/zone.
func domain(n *framework.Node, key string) string { return framework.DomainName(key, n.Labels[key]) }

func pods(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}

// weighted is a tally with what a pod in it is worth.
type weighted struct {
	*framework.Tally
	weight int
}

// PreScore implements framework.PreScorePlugin.
func (pl Plugin) PreScore(s *framework.Snapshot, p *framework.Pod, feasible []*framework.Node) framework.NodeScorer {
	terms := pl.wishes(s, p)
	if len(terms) == 0 {
		return nil
	}
	sums := make(framework.Scores, len(feasible))
	for i, n := range feasible {
		for _, t := range terms {
			count, _ := t.Of(n)
			sums[i] += float64(t.weight * count)
		}
	}
	low, high := slices.Min(sums), slices.Max(sums)
	for i := range sums {
		if high > low {
			sums[i] = framework.MaxScore * (sums[i] - low) / (high - low)
		} else {
			sums[i] = 0
		}
	}
	return sums
}

// wishes returns the terms that make nodes better or worse: the pod's own, and those of other pods
// that choose the pod.
func (pl Plugin) wishes(s *framework.Snapshot, p *framework.Pod) []weighted {
	var all []weighted
	for kind, sign := range map[framework.TermKind]int{framework.PreferredAffinity: 1, framework.PreferredAntiAffinity: -1} {
		for _, t := range p.Terms[kind] {
			all = append(all, weighted{s.Tally(t.TopologyKey, t.PodSelector), sign * int(t.Weight)})
		}
	}
	if len(all) == 0 && pl.IgnorePreferredTermsOfExistingPods {
		return nil
	}
	for kind, sign := range map[framework.TermKind]int{framework.PreferredAffinity: 1, framework.PreferredAntiAffinity: -1} {
		for c := range s.Carried(kind, p) {
			all = append(all, weighted{&c.Tally, sign * int(c.Weight)})
		}
	}
	if pl.HardPodAffinityWeight > 0 {
		for c := range s.Carried(framework.Affinity, p) {
			all = append(all, weighted{&c.Tally, pl.HardPodAffinityWeight})
		}
	}
	// Without pods there is nothing to prefer.
	return slices.DeleteFunc(all, func(w weighted) bool { return w.Total == 0 })
}
