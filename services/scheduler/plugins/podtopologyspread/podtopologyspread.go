// Package podtopologyspread spreads pods over zones, nodes and other domains: it refuses nodes by
// constraints with DoNotSchedule, and rates them by those with ScheduleAnyway.
//
// Pods without constraints of their own are spread by default constraints, which count the pods of
// the same controller or else those of the same services.
package podtopologyspread

import (
	"fmt"
	"maps"
	"slices"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is the plug-in's name.
const Name = "PodTopologySpread"

// Plugin filters by required constraints and rates by the others.
type Plugin struct {
	// Defaults are the constraints of pods without constraints of their own. They have no PodSelector.
	Defaults []framework.SpreadConstraint
	// PartialTopologies lets nodes count that lack the labels of some default constraints, so that
	// clusters without zones spread over nodes.
	PartialTopologies bool
}

// Default spreads over zones and nodes as far as possible, as Kubernetes does by default.
func Default() Plugin {
	return Plugin{PartialTopologies: true, Defaults: []framework.SpreadConstraint{
		{TopologyKey: core.LabelHostname, MaxSkew: 3, MinDomains: 1, HonorAffinity: true},
		{TopologyKey: core.LabelZone, MaxSkew: 5, MinDomains: 1, HonorAffinity: true},
	}}
}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// constraint is a constraint in one cycle.
type constraint struct {
	framework.SpreadConstraint
	// on counts the pods of a node.
	on func(*framework.Node) int
	// counts reports whether a pod is one of those that are counted.
	counts func(*framework.Pod) bool
}

// constraints returns those of a pod, required ones or others.
func (pl Plugin) constraints(s *framework.Snapshot, p *framework.Pod, required bool) []constraint {
	of, matching := p.Spread, func(c framework.SpreadConstraint) constraint { return matchingSelector(s, c) }
	if len(of) == 0 {
		of, matching = pl.Defaults, ofOwner(s, p)
	}
	if matching == nil {
		return nil
	}
	var all []constraint
	for _, c := range of {
		if c.Required == required {
			all = append(all, matching(c))
		}
	}
	return all
}

func matchingSelector(s *framework.Snapshot, c framework.SpreadConstraint) constraint {
	tally := s.TallyByNode(c.PodSelector)
	return constraint{
		c,
		func(n *framework.Node) int {
			count, _ := tally.Of(n)
			return count
		},
		func(p *framework.Pod) bool { return !p.Deleting && c.Matches(s, p) },
	}
}

// ofOwner returns how default constraints count for a pod: the pods of the same controller, or else
// those that the same services select; nil when the pod has neither.
func ofOwner(s *framework.Snapshot, p *framework.Pod) func(framework.SpreadConstraint) constraint {
	switch p.ControllerKind {
	case "ReplicaSet", "StatefulSet", "ReplicationController":
		return func(c framework.SpreadConstraint) constraint {
			return constraint{
				c,
				func(n *framework.Node) int { return n.Controllers[p.Controller] },
				func(o *framework.Pod) bool { return !o.Deleting && o.Controller == p.Controller },
			}
		}
	}
	selected := s.ServiceLabels(p)
	if len(selected) == 0 {
		return nil
	}
	selector := framework.SelectorOfLabels(p.Namespace, selected)
	return func(c framework.SpreadConstraint) constraint {
		c.PodSelector = selector
		return matchingSelector(s, c)
	}
}

// describe names the pods that count.
func (c *constraint) describe() string {
	if c.PodSelector == nil {
		return "pods of the same controller"
	}
	return "pods " + c.PodSelector.String()
}

// eligible reports whether the pods of a node count by the policies of a constraint.
func (c *constraint) eligible(p *framework.Pod, n *framework.Node) bool {
	return (!c.HonorAffinity || p.RequiredNodes.Matches(n.Name, n.Labels)) && (!c.HonorTaints || !hasUntoleratedTaint(p, n))
}

func hasUntoleratedTaint(p *framework.Pod, n *framework.Node) bool {
	return slices.ContainsFunc(n.Taints, func(taint *corev1.Taint) bool {
		return taint.GetEffect() != "PreferNoSchedule" &&
			!slices.ContainsFunc(p.Tolerations, func(t *corev1.Toleration) bool { return core.Tolerates(t, taint) })
	})
}

// hasAllKeys reports whether a node has the labels of all constraints.
func hasAllKeys(all []constraint, n *framework.Node) bool {
	return !slices.ContainsFunc(all, func(c constraint) bool {
		_, ok := n.Labels[c.TopologyKey]
		return !ok
	})
}

// PreFilter implements framework.PreFilterPlugin.
func (pl Plugin) PreFilter(s *framework.Snapshot, p *framework.Pod) framework.NodeFilter {
	all := pl.constraints(s, p, true)
	if len(all) == 0 {
		return nil
	}
	f := &filter{pod: p, constraints: all, domains: make([]domains, len(all))}
	for i := range all {
		f.domains[i] = domains{counts: map[string]int{}}
		if all[i].counts(p) {
			f.domains[i].self = 1
		}
	}
	for _, n := range s.Nodes {
		if !hasAllKeys(all, n) {
			continue
		}
		for i := range all {
			if all[i].eligible(p, n) {
				f.domains[i].counts[n.Labels[all[i].TopologyKey]] += all[i].on(n)
			}
		}
	}
	for i := range f.domains {
		f.domains[i].findFewest(all[i].MinDomains)
	}
	return f
}

// filter holds the required constraints of a pod.
type filter struct {
	pod         *framework.Pod
	constraints []constraint
	domains     []domains // by constraint
}

// domains are those of a constraint.
type domains struct {
	counts map[string]int // pods by domain
	self   int            // 1 when the pod itself counts
	fewest int            // pods in the domain with the fewest; 0 with too few domains
}

func (d *domains) findFewest(minDomains int) {
	d.fewest = 0
	if len(d.counts) < minDomains {
		return
	}
	first := true
	for _, count := range d.counts {
		if first || count < d.fewest {
			d.fewest, first = count, false
		}
	}
}

var (
	tooMany = []string{"node(s) didn't match pod topology spread constraints"}
	noLabel = []string{"node(s) didn't match pod topology spread constraints (missing required label)"}
)

// Filter implements framework.NodeFilter.
func (f *filter) Filter(n *framework.Node) []string {
	for i := range f.constraints {
		value, ok := n.Labels[f.constraints[i].TopologyKey]
		if !ok {
			return noLabel
		}
		if d := &f.domains[i]; d.counts[value]+d.self-d.fewest > f.constraints[i].MaxSkew {
			return tooMany
		}
	}
	return nil
}

// CountPod implements framework.PodCounter.
func (f *filter) CountPod(n *framework.Node, p *framework.Pod, by int) {
	if !hasAllKeys(f.constraints, n) {
		return
	}
	for i := range f.constraints {
		if c := &f.constraints[i]; c.counts(p) && c.eligible(f.pod, n) {
			f.domains[i].counts[n.Labels[c.TopologyKey]] += by
			f.domains[i].findFewest(c.MinDomains)
		}
	}
}

// MayPass implements framework.Preemptible: the node has the topology labels.
func (f *filter) MayPass(n *framework.Node) bool { return hasAllKeys(f.constraints, n) }

// Explain implements framework.NodeFilter.
func (f *filter) Explain(n *framework.Node) string {
	for i := range f.constraints {
		c, d := &f.constraints[i], &f.domains[i]
		value, ok := n.Labels[c.TopologyKey]
		if !ok {
			return fmt.Sprintf("topology spread: the node has no label %s", c.TopologyKey)
		}
		if d.counts[value]+d.self-d.fewest <= c.MaxSkew {
			continue
		}
		text := fmt.Sprintf("topology spread: %s would have %d %s, ",
			framework.DomainName(c.TopologyKey, value), d.counts[value]+d.self, c.describe())
		if len(d.counts) < c.MinDomains {
			return text + fmt.Sprintf("and there are %d domains, fewer than minDomains %d; maxSkew is %d", len(d.counts), c.MinDomains, c.MaxSkew)
		}
		return text + fmt.Sprintf("%s has %d; maxSkew is %d", framework.DomainName(c.TopologyKey, d.emptiest()), d.fewest, c.MaxSkew)
	}
	return ""
}

// emptiest returns the first domain with the fewest pods.
func (d *domains) emptiest() string {
	for _, value := range slices.Sorted(maps.Keys(d.counts)) {
		if d.counts[value] == d.fewest {
			return value
		}
	}
	return ""
}
