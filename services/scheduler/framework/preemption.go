package framework

import (
	"maps"
	"slices"

	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// Room is what a PostFilterPlugin decides for a pod that fits on no node.
type Room struct {
	// Node is where room is made for the pod: its nominated node. Empty when none is made.
	Node string
	// Victims are the pods that have to leave that node, the most important first. Some may be about
	// to leave already.
	Victims []*Pod
	// Waits says that the pod keeps the nominated node that it has.
	Waits bool
	// Reason says why no room is made, empty when it is.
	Reason string
	// Candidates are the nodes on which room could be made, and Refusals the reasons of those where
	// it cannot, as far as the plug-in has looked.
	Candidates []Candidate
	Refusals   map[string][]string
}

// Candidate is a node that could run a pod without some others.
type Candidate struct {
	// Node is the node's name.
	Node string
	// Victims are these others, the most important first.
	Victims []*Pod
	// Violations is how many of them a PodDisruptionBudget protects.
	Violations int
}

// Budget is a PodDisruptionBudget.
type Budget struct {
	// PodSelector chooses the pods.
	*PodSelector
	// Allowed is how many of them may be deleted now.
	Allowed int
	// Disrupted are the names of pods whose deletion the budget has counted already.
	Disrupted map[string]bool
}

// NewBudget reads a PodDisruptionBudget.
func NewBudget(b *policyv1.PodDisruptionBudget) *Budget {
	disrupted := map[string]bool{}
	for name := range b.GetStatus().GetDisruptedPods() {
		disrupted[name] = true
	}
	return &Budget{
		PodSelector: newPodSelector([]string{b.GetMetadata().GetNamespace()}, nil, selectorOf(b.GetSpec().GetSelector())),
		Allowed:     int(b.GetStatus().GetDisruptionsAllowed()), Disrupted: disrupted,
	}
}

// SetBudget notes a budget, nil when it was deleted.
func (s *Snapshot) SetBudget(namespace, name string, b *Budget) {
	if b == nil {
		delete(s.budgets, namespace+"/"+name)
		return
	}
	s.budgets[namespace+"/"+name] = b
}

// Budgets returns the budgets, sorted by namespace and name.
func (s *Snapshot) Budgets() []*Budget {
	all := make([]*Budget, 0, len(s.budgets))
	for _, key := range slices.Sorted(maps.Keys(s.budgets)) {
		all = append(all, s.budgets[key])
	}
	return all
}

// Nominate notes that room is made for a waiting pod on a node, in place of its nomination before.
func (s *Snapshot) Nominate(p *Pod, n *Node) {
	s.EndNomination(p.UID)
	n.Nominated = append(n.Nominated, p)
	s.pods.nominate(p, 1)
	s.nominations[p.UID] = Nomination{p, n}
}

// EndNomination ends the nomination of a pod, if any, and returns what it was.
func (s *Snapshot) EndNomination(uid string) (was Nomination, ok bool) {
	was, ok = s.nominations[uid]
	if ok {
		delete(s.nominations, uid)
		s.pods.nominate(was.Pod, -1)
		was.Node.Nominated = slices.DeleteFunc(was.Node.Nominated, func(o *Pod) bool { return o.UID == uid })
	}
	return was, ok
}

// Nomination is a waiting pod and the node on which room is made for it.
type Nomination struct {
	// Pod waits.
	Pod *Pod
	// Node is its nominated node.
	Node *Node
}

// NominatedNode returns the node on which room is made for a pod, nil for none.
func (s *Snapshot) NominatedNode(uid string) *Node { return s.nominations[uid].Node }

// SetPreempted notes that a pod is about to be deleted to make room for another, or not any more.
func (s *Snapshot) SetPreempted(uid string, preempted bool) {
	if preempted {
		s.preempted[uid] = true
	} else {
		delete(s.preempted, uid)
	}
}

// IsPreempted reports whether a pod is deleted to make room for another, or about to be.
func (s *Snapshot) IsPreempted(p *Pod) bool { return p.Preempted || s.preempted[p.UID] }
