package daemonset

import (
	"cmp"
	"slices"

	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// node is a node as a plan sees it.
type node struct {
	name string
	// runs is true when a pod is to run on the node, and stays when one that is there may stay.
	runs, stays bool
	// pods are the pods of the set that are on the node or made for it, the oldest first.
	pods []*pod
}

// pod is a pod of the set as a plan sees it.
type pod struct {
	*corev1.Pod
	// current is true for a pod of the set's present template.
	current bool
	// ready and available say so of a pod that is being deleted too.
	ready, available bool
}

func (p *pod) deleting() bool { return p.GetMetadata().GetDeletionTimestamp() != nil }

// limits bound a rolling update.
type limits struct {
	// rolling is false for OnDelete: old pods stay until a user deletes them.
	rolling bool
	// surge is how many nodes may have a new pod while the old one is available, unavailable on how
	// many no pod need be available. One of them is 0.
	surge, unavailable int
}

// limitsOf returns the limits of a set whose pods are to run on so many nodes.
func limitsOf(set *appsv1.DaemonSet, desired int) (limits, error) {
	s := set.GetSpec().GetUpdateStrategy()
	if s.GetType() != apps.StrategyRollingUpdate {
		return limits{}, nil
	}
	surge, err := object.ScaledValue(s.GetRollingUpdate().GetMaxSurge(), int32(desired), true)
	if err != nil {
		return limits{}, err
	}
	unavailable, err := object.ScaledValue(s.GetRollingUpdate().GetMaxUnavailable(), int32(desired), true)
	if err != nil {
		return limits{}, err
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return limits{rolling: true, surge: int(surge), unavailable: int(unavailable)}, nil
}

// actions are what a plan does.
type actions struct {
	// create has the nodes that get a pod.
	create []string
	// remove has the pods that are deleted, among them the failed and the succeeded ones.
	remove            []*pod
	failed, succeeded []*pod
}

func (a actions) none() bool { return len(a.create) == 0 && len(a.remove) == 0 }

// plan decides what to do on the nodes. It first gives each node the pods that it needs and takes
// the others away; when there is nothing to do, it takes the next step of a rolling update. held
// reports nodes on which failed pods have to stay for now.
func plan(nodes []*node, l limits, held func(node string) bool) actions {
	var a actions
	for _, n := range nodes {
		a.keep(n, l.surge > 0, held)
	}
	switch {
	case !a.none() || !l.rolling:
	case l.surge > 0:
		a.surge(nodes, l.surge)
	default:
		a.replace(nodes, l.unavailable)
	}
	return a
}

// keep gives a node the pods that it needs, and takes away those that it must not have.
func (a *actions) keep(n *node, surging bool, held func(string) bool) {
	switch {
	case n.runs && len(n.pods) == 0:
		a.create = append(a.create, n.name)
	case !n.stays:
		for _, p := range n.pods {
			if !p.deleting() {
				a.remove = append(a.remove, p)
			}
		}
	default:
		running := a.clean(n, held)
		switch {
		case !surging && len(running) > 1:
			a.remove = append(a.remove, running[1:]...)
		case surging && len(running) > 1:
			a.prune(running)
		case surging && len(running) == 0 && n.runs && !slices.ContainsFunc(n.pods, (*pod).finished):
			a.create = append(a.create, n.name)
		}
	}
}

func (p *pod) finished() bool { return core.IsPodFinished(p.Pod) && !p.deleting() }

// clean takes the pods away that have ended, and returns those that go on.
func (a *actions) clean(n *node, held func(string) bool) []*pod {
	var running []*pod
	for _, p := range n.pods {
		switch phase := p.GetStatus().GetPhase(); {
		case p.deleting():
		case phase == core.PodFailed && held(n.name):
		case phase == core.PodFailed:
			a.failed, a.remove = append(a.failed, p), append(a.remove, p)
		case phase == core.PodSucceeded:
			a.succeeded, a.remove = append(a.succeeded, p), append(a.remove, p)
		default:
			running = append(running, p)
		}
	}
	return running
}

// prune leaves one pod of the present template and one other on a node: an available one, or else
// the oldest. The other one goes too when it is not ready, or when the first is available.
func (a *actions) prune(running []*pod) {
	slices.SortStableFunc(running, func(a, b *pod) int { return cmp.Compare(rank(a), rank(b)) })
	var newest, other *pod
	for _, p := range running {
		switch {
		case p.current && newest == nil:
			newest = p
		case !p.current && other == nil:
			other = p
		default:
			a.remove = append(a.remove, p)
		}
	}
	if newest != nil && other != nil && (!other.ready || newest.available) {
		a.remove = append(a.remove, other)
	}
}

// rank orders pods by what they are worth to users.
func rank(p *pod) int {
	switch {
	case p.available:
		return 0
	case p.ready:
		return 1
	}
	return 2
}

// generations returns the one pod of the present template and the one of another on a node, nil for
// none; false when there are several of one.
func (n *node) generations() (now, before *pod, ok bool) {
	for _, p := range n.pods {
		at := &before
		if p.current {
			at = &now
		}
		switch {
		case p.deleting():
		case *at != nil:
			return nil, nil, false
		default:
			*at = p
		}
	}
	return now, before, true
}

// replace deletes old pods, as many as may be unavailable. Old pods that are not available go in
// any case. keep creates the new ones when the old ones are gone.
func (a *actions) replace(nodes []*node, most int) {
	unavailable := 0
	var candidates []*pod
	for _, n := range nodes {
		if !n.runs && len(n.pods) == 0 {
			continue
		}
		now, before, ok := n.generations()
		switch {
		case !ok, (now == nil) == (before == nil):
			unavailable++
		case now != nil:
			if !now.available {
				unavailable++
			}
		case !before.available:
			a.remove = append(a.remove, before)
			unavailable++
		default:
			candidates = append(candidates, before)
		}
	}
	a.remove = append(a.remove, candidates[:min(max(most-unavailable, 0), len(candidates))]...)
}

// surge creates new pods beside old ones that are available, on so many nodes at most, and in place
// of those that are not. Old pods go when the new ones are available, and from nodes where the set
// does not belong any more when enough pods are available elsewhere.
func (a *actions) surge(nodes []*node, most int) {
	surging, available, desired := 0, 0, 0
	var candidates []string
	var leaving []*pod
	for _, n := range nodes {
		if n.runs {
			desired++
		}
		now, before, ok := n.generations()
		if !ok {
			surging++
			continue
		}
		if before != nil && before.available || before == nil && now != nil && now.available {
			available++
		}
		switch {
		case before == nil:
		case now != nil && !now.available:
			surging++
		case now != nil, !n.runs && !before.available:
			a.remove = append(a.remove, before)
		case !n.runs:
			leaving = append(leaving, before)
		case !before.available:
			a.create = append(a.create, n.name)
		default:
			candidates = append(candidates, n.name)
		}
	}
	a.remove = append(a.remove, leaving[:min(max(available-desired, 0), len(leaving))]...)
	a.create = append(a.create, candidates[:min(max(most-surging, 0), len(candidates))]...)
}

// byAge orders pods as Kubernetes does: those with a node first, then the oldest, then by name.
func byAge(a, b *pod) int {
	m, n := a.GetMetadata(), b.GetMetadata()
	unbound := func(p *pod) int {
		if p.GetSpec().GetNodeName() == "" {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(unbound(a), unbound(b)),
		m.GetCreationTimestamp().AsTime().Compare(n.GetCreationTimestamp().AsTime()),
		cmp.Compare(m.GetName(), n.GetName()),
	)
}
