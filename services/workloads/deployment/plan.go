package deployment

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// replicas are the numbers of one ReplicaSet that the arithmetic of a rollout needs.
type replicas struct {
	name string
	// wanted is spec.replicas, actual status.replicas, available status.availableReplicas.
	wanted, actual, available int32
	// maxReplicas is how many pods the deployment could have when the set was last scaled, 0 when that
	// is not known; see the annotation deployment.kubernetes.io/max-replicas.
	maxReplicas int32
	// age orders sets: the lower, the older.
	age int64
}

// present is how many pods the set has or will have. Its status lags behind its size, so that
// neither alone is enough.
func (s replicas) present() int32 { return max(s.wanted, s.actual) }

// staying is the set without the available pods beyond its size, which it will delete. If they
// counted, another set could lose as many again.
func (s replicas) staying() replicas {
	s.available = min(s.available, s.wanted)
	return s
}

// limits are the resolved numbers of a rolling update.
type limits struct {
	replicas, maxSurge, maxUnavailable int32
}

// scaling is a ReplicaSet's new size.
type scaling struct {
	name string
	to   int32
}

// resolveLimits turns numbers or percentages into numbers, as Kubernetes does: the surge rounds up,
// unavailable rounds down, and when both are 0, one pod may be unavailable, since the rollout could
// not proceed otherwise.
func resolveLimits(n int32, maxSurge, maxUnavailable *metav1.IntOrString) (limits, error) {
	surge, err := object.ScaledValue(maxSurge, n, true)
	if err != nil {
		return limits{}, fmt.Errorf("maxSurge: %w", err)
	}
	unavailable, err := object.ScaledValue(maxUnavailable, n, false)
	if err != nil {
		return limits{}, fmt.Errorf("maxUnavailable: %w", err)
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return limits{replicas: n, maxSurge: surge, maxUnavailable: min(unavailable, n)}, nil
}

// planRolling is the next step of a rolling update: it grows the new set as far as the surge allows
// and shrinks the old ones as far as availability allows, unavailable pods first. Repeated as pods
// become available, it ends with all pods in the new set. It returns only sets that change.
func planRolling(l limits, newSet replicas, old []replicas) []scaling {
	var steps []scaling
	// Pods that a set has beyond its size will be deleted, but still exist: the surge counts them.
	total := newSet.present()
	for _, s := range old {
		total += s.present()
	}
	grown := newSet
	switch {
	case newSet.wanted > l.replicas:
		grown.wanted = l.replicas
	case newSet.wanted < l.replicas:
		room := max(l.replicas+l.maxSurge-total, 0)
		grown.wanted += min(room, l.replicas-newSet.wanted)
	}
	if grown.wanted != newSet.wanted {
		steps = append(steps, scaling{newSet.name, grown.wanted})
	}
	return append(steps, planOld(l, grown, old)...)
}

// planOld shrinks the old sets. Pods of the new set that are not available yet reduce what may be
// deleted.
func planOld(l limits, newSet replicas, old []replicas) []scaling {
	newSet = newSet.staying()
	shrunk := slices.Clone(old)
	total, available := newSet.wanted, newSet.available
	for i, s := range shrunk {
		shrunk[i] = s.staying()
		total += s.wanted
		available += shrunk[i].available
	}
	minAvailable := l.replicas - l.maxUnavailable
	slices.SortStableFunc(shrunk, func(a, b replicas) int { return cmp.Compare(a.age, b.age) })

	// Unavailable pods are deleted first, as many as the missing pods of the new set allow.
	budget := total - minAvailable - (newSet.wanted - newSet.available)
	for i := range shrunk {
		s := &shrunk[i]
		n := min(max(budget, 0), max(s.wanted-s.available, 0))
		s.wanted -= n
		budget -= n
	}
	// Then available pods, as long as enough of them stay.
	budget = available - minAvailable
	for i := range shrunk {
		s := &shrunk[i]
		n := min(max(budget, 0), s.wanted)
		s.wanted -= n
		budget -= n
	}
	return changes(old, shrunk)
}

// planProportional spreads a change of the deployment's size over its sets while a rollout is under
// way or paused, in proportion to their sizes, so that the ratio of old and new pods stays. The
// remainder goes to the largest set.
func planProportional(l limits, sets []replicas) []scaling {
	var total int32
	for _, s := range sets {
		total += s.wanted
	}
	allowed := int32(0)
	if l.replicas > 0 {
		allowed = l.replicas + l.maxSurge
	}
	change := allowed - total
	if change == 0 {
		return nil
	}
	sized := slices.Clone(sets)
	slices.SortStableFunc(sized, func(a, b replicas) int {
		if change > 0 { // the largest first, and of equals the newest
			return cmp.Or(cmp.Compare(b.wanted, a.wanted), cmp.Compare(b.age, a.age))
		}
		return cmp.Or(cmp.Compare(b.wanted, a.wanted), cmp.Compare(a.age, b.age))
	})
	left := change
	for i := range sized {
		s := &sized[i]
		if s.wanted == 0 || left == 0 {
			continue
		}
		before := cmp.Or(s.maxReplicas, total)
		share := int32(math.Round(float64(s.wanted)*float64(allowed)/float64(before))) - s.wanted
		if change > 0 {
			share = min(max(share, 0), left)
		} else {
			share = max(min(share, 0), left, -s.wanted)
		}
		s.wanted += share
		left -= share
	}
	if left != 0 && len(sized) > 0 {
		sized[0].wanted = max(sized[0].wanted+left, 0)
	}
	return changes(sets, sized)
}

// changes lists the sets that differ, in the order of after.
func changes(before, after []replicas) []scaling {
	wanted := map[string]int32{}
	for _, s := range before {
		wanted[s.name] = s.wanted
	}
	var steps []scaling
	for _, s := range after {
		if s.wanted != wanted[s.name] {
			steps = append(steps, scaling{s.name, s.wanted})
		}
	}
	return steps
}
