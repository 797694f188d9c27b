package defaultpreemption

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// selectVictims finds the pods that have to leave a node so that the pod fits: as few as possible,
// and the less important ones; or the reasons why it would not fit without any of them. The node is
// as before afterwards.
func selectVictims(c *framework.Cycle, n *framework.Node, budgets []*framework.Budget) (framework.Candidate, []string) {
	var lower []*framework.Pod
	for _, p := range n.Pods {
		if p.Priority < c.Pod().Priority {
			lower = append(lower, p)
		}
	}
	if len(lower) == 0 {
		return framework.Candidate{}, []string{reasonNoVictims}
	}
	for _, p := range lower {
		c.RemovePod(n, p)
	}
	if _, reasons := c.Refusal(n); len(reasons) > 0 {
		for _, p := range lower {
			c.AddPod(n, p)
		}
		return framework.Candidate{}, reasons
	}
	slices.SortFunc(lower, moreImportant)
	candidate := framework.Candidate{Node: n.Name}
	// Pods that a budget protects are the first that may stay.
	violating, others := violations(c.Snapshot(), lower, budgets)
	for _, p := range violating {
		if !reprieved(c, n, p) {
			candidate.Victims = append(candidate.Victims, p)
		}
	}
	candidate.Violations = len(candidate.Victims)
	for _, p := range others {
		if !reprieved(c, n, p) {
			candidate.Victims = append(candidate.Victims, p)
		}
	}
	for _, p := range candidate.Victims {
		c.AddPod(n, p)
	}
	if len(candidate.Victims) == 0 {
		return framework.Candidate{}, []string{reasonNoVictims}
	}
	slices.SortFunc(candidate.Victims, moreImportant)
	return candidate, nil
}

// reprieved puts a pod back on a node if the pod of the cycle fits beside it.
func reprieved(c *framework.Cycle, n *framework.Node, p *framework.Pod) bool {
	c.AddPod(n, p)
	if _, reasons := c.Refusal(n); len(reasons) == 0 {
		return true
	}
	c.RemovePod(n, p)
	return false
}

// violations divides pods into those whose deletion, after that of the pods before them, exceeds
// what a budget allows, and the others.
func violations(s *framework.Snapshot, pods []*framework.Pod, budgets []*framework.Budget) (violating, others []*framework.Pod) {
	deleted := make([]int, len(budgets))
	for _, p := range pods {
		exceeds := false
		for i, b := range budgets {
			if b.Disrupted[p.Name] || !b.Matches(s, p) {
				continue
			}
			deleted[i]++
			exceeds = exceeds || deleted[i] > b.Allowed
		}
		if exceeds {
			violating = append(violating, p)
		} else {
			others = append(others, p)
		}
	}
	return violating, others
}

// moreImportant orders pods, the most important first: by priority, then by how long they run.
func moreImportant(a, b *framework.Pod) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(started(a), started(b)),
		strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// started is when a pod began to run; a pod that has not begun is the latest.
func started(p *framework.Pod) int64 {
	if p.Started.IsZero() {
		return math.MaxInt64
	}
	return p.Started.UnixNano()
}

// compare orders candidates, the best first: fewest violations of budgets, lowest priority of the
// most important victim, smallest sum of priorities, fewest victims, and then the one whose most
// important victims began to run last.
func compare(a, b framework.Candidate) int {
	return cmp.Or(
		cmp.Compare(a.Violations, b.Violations),
		cmp.Compare(a.Victims[0].Priority, b.Victims[0].Priority),
		cmp.Compare(prioritySum(a.Victims), prioritySum(b.Victims)),
		cmp.Compare(len(a.Victims), len(b.Victims)),
		cmp.Compare(started(b.Victims[0]), started(a.Victims[0])),
	)
}

// prioritySum counts priorities from the lowest, so that one pod more is never better.
func prioritySum(pods []*framework.Pod) int64 {
	sum := int64(0)
	for _, p := range pods {
		sum += int64(p.Priority) - math.MinInt32
	}
	return sum
}
