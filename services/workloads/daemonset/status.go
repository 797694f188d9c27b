package daemonset

import (
	"time"

	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// newStatus is the status of a set with its pods on these nodes. The oldest pod of a node counts.
func newStatus(set *appsv1.DaemonSet, nodes []*node, collisions int32) *appsv1.DaemonSetStatus {
	before := set.GetStatus()
	s := &appsv1.DaemonSetStatus{ObservedGeneration: set.GetMetadata().GetGeneration(), Conditions: before.GetConditions()}
	if collisions > 0 || before != nil && before.CollisionCount != nil {
		s.CollisionCount = &collisions
	}
	for _, n := range nodes {
		switch has := len(n.pods) > 0; {
		case !n.runs && has:
			s.NumberMisscheduled++
		case n.runs:
			s.DesiredNumberScheduled++
			if has {
				count(s, n.pods[0])
			}
		}
	}
	s.NumberUnavailable = s.GetDesiredNumberScheduled() - s.GetNumberAvailable()
	return s
}

func count(s *appsv1.DaemonSetStatus, p *pod) {
	s.CurrentNumberScheduled++
	if p.ready {
		s.NumberReady++
	}
	if p.available {
		s.NumberAvailable++
	}
	if p.current {
		s.UpdatedNumberScheduled++
	}
}

// nextAvailable is how long it takes until the next ready pod is available, 0 for none.
func nextAvailable(set *appsv1.DaemonSet, nodes []*node, now time.Time) (next time.Duration) {
	for _, n := range nodes {
		for _, p := range n.pods {
			wait, ready := podcontrol.AvailableIn(p.Pod, set.GetSpec().GetMinReadySeconds(), now)
			if ready && wait > 0 && (next == 0 || wait < next) {
				next = wait
			}
		}
	}
	return next
}
