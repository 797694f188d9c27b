// Package defaultpreemption makes room for pods that no node can run, by choosing pods with lower
// priority that have to leave a node. It chooses and deletes nothing.
package defaultpreemption

import (
	"hash/fnv"
	"slices"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is the plug-in's name.
const Name = "DefaultPreemption"

// The nodes that are looked at for a pod: until there are candidates on a share of the nodes that
// may help, and on no fewer than an absolute number.
const (
	MinCandidateNodesPercentage = 10
	MinCandidateNodesAbsolute   = 100
)

// Reasons why no room is made.
const (
	reasonNever      = "not eligible due to preemptionPolicy=Never."
	reasonWaits      = "not eligible due to a terminating pod on the nominated node."
	reasonNoVictims  = "No preemption victims found for incoming pod"
	reasonNotHelpful = "Preemption is not helpful for scheduling"
)

// Plugin chooses the victims of preemption.
type Plugin struct{}

// Name implements framework.Plugin.
func (Plugin) Name() string { return Name }

// PostFilter implements framework.PostFilterPlugin.
func (Plugin) PostFilter(c *framework.Cycle) framework.Room {
	switch {
	case c.Pod().NeverPreempts:
		return framework.Room{Waits: true, Reason: reasonNever}
	case waits(c):
		return framework.Room{Waits: true, Reason: reasonWaits}
	}
	candidates, refusals := dryRun(c)
	room := framework.Room{Candidates: candidates, Refusals: refusals}
	if len(candidates) == 0 {
		room.Reason = unhelpful(len(c.Snapshot().Nodes), refusals)
		return room
	}
	best := slices.MinFunc(candidates, compare)
	room.Node, room.Victims = best.Node, best.Victims
	return room
}

// waits reports whether room is being made for the pod already: victims are leaving its nominated
// node, and the node will do without them as far as preemption can tell.
func waits(c *framework.Cycle) bool {
	n := c.Snapshot().NominatedNode(c.Pod().UID)
	return n != nil && slices.Contains(c.Preemptible(), n) && slices.ContainsFunc(n.Pods, func(p *framework.Pod) bool {
		return p.Priority < c.Pod().Priority && c.Snapshot().IsPreempted(p)
	})
}

// dryRun returns nodes that could run the pod without others, and why the remaining ones that it
// has looked at could not. It ends when there are enough candidates and one of them violates no
// budget. Where it begins depends on the pod, so that pods do not all look at the same nodes.
func dryRun(c *framework.Cycle) ([]framework.Candidate, map[string][]string) {
	nodes := c.Preemptible()
	if len(nodes) == 0 {
		return nil, nil
	}
	enough := max(len(nodes)*MinCandidateNodesPercentage/100, MinCandidateNodesAbsolute)
	first := offset(c.Pod().UID, len(nodes))
	budgets := c.Snapshot().Budgets()
	var candidates []framework.Candidate
	refusals, harmless := map[string][]string{}, false
	for i := range nodes {
		n := nodes[(first+i)%len(nodes)]
		candidate, reasons := selectVictims(c, n, budgets)
		if len(reasons) > 0 {
			refusals[n.Name] = reasons
			continue
		}
		candidates = append(candidates, candidate)
		if harmless = harmless || candidate.Violations == 0; harmless && len(candidates) >= enough {
			break
		}
	}
	return candidates, refusals
}

func offset(uid string, n int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(uid)) // It has no errors.
	return int(h.Sum32() % uint32(n))
}

// unhelpful counts the nodes by why they could not run the pod without others either.
func unhelpful(nodes int, refusals map[string][]string) string {
	counts := map[string]int{}
	for _, reasons := range refusals {
		for _, reason := range reasons {
			counts[reason]++
		}
	}
	if others := nodes - len(refusals); others > 0 {
		counts[reasonNotHelpful] = others
	}
	return framework.Unavailable(nodes, counts)
}
