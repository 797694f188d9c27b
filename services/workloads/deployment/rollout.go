package deployment

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

// rollout is a deployment with its sets.
type rollout struct {
	d      *appsv1.Deployment
	limits limits
	// current is the set of the current template, nil before it is created; old are the others, oldest
	// first.
	current *appsv1.ReplicaSet
	old     []*appsv1.ReplicaSet
	// createError is why the set of the current template could not be created, empty when it could.
	createError string
}

// all are the old sets and the current one.
func (r *rollout) all() []*appsv1.ReplicaSet {
	if r.current == nil {
		return r.old
	}
	return append(slices.Clone(r.old), r.current)
}

// newRollout sorts a deployment's sets into the current one and the old ones.
func newRollout(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (*rollout, error) {
	limits, err := limitsOf(d)
	if err != nil {
		return nil, err
	}
	r := &rollout{d: d, limits: limits}
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(cmp.Compare(ageOf(a), ageOf(b)), cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName()))
	})
	for _, rs := range sets {
		// Of several with the template, adopted ones for example, the oldest is the current one and stays
		// so.
		if r.current == nil && sameTemplate(rs, d) {
			r.current = rs
			continue
		}
		r.old = append(r.old, rs)
	}
	return r, nil
}

// limitsOf resolves a deployment's limits. With Recreate there is neither surge nor unavailability.
func limitsOf(d *appsv1.Deployment) (limits, error) {
	if d.GetSpec().GetStrategy().GetType() == apps.StrategyRecreate {
		return limits{replicas: d.GetSpec().GetReplicas()}, nil
	}
	update := d.GetSpec().GetStrategy().GetRollingUpdate()
	return resolveLimits(d.GetSpec().GetReplicas(), update.GetMaxSurge(), update.GetMaxUnavailable())
}

// advance takes the next step of the rollout from any state.
func (c *reconciler) advance(ctx context.Context, r *rollout) error {
	spec := r.d.GetSpec()
	if spec.GetPaused() {
		if r.current != nil {
			if err := c.keepRevision(ctx, r); err != nil {
				return err
			}
		}
		return c.scaleAll(ctx, r, c.proportional(r))
	}
	if err := c.ensureCurrent(ctx, r); err != nil {
		return err
	}
	if steps := c.proportional(r); len(steps) > 0 {
		return c.scaleAll(ctx, r, steps)
	}
	var err error
	if spec.GetStrategy().GetType() == apps.StrategyRecreate {
		err = c.recreate(ctx, r)
	} else {
		err = c.scaleAll(ctx, r, planRolling(r.limits, numbers(r.current), allNumbers(r.old)))
	}
	if err != nil {
		return err
	}
	return c.trimHistory(ctx, r)
}

// recreate stops all old pods, and starts the new ones only when none is left.
func (c *reconciler) recreate(ctx context.Context, r *rollout) error {
	var steps []scaling
	for _, rs := range r.old {
		if rs.GetSpec().GetReplicas() > 0 {
			steps = append(steps, scaling{rs.GetMetadata().GetName(), 0})
		}
	}
	if len(steps) > 0 {
		return c.scaleAll(ctx, r, steps)
	}
	for _, rs := range r.old {
		// Until the set's own controller has seen its new size it may still make pods. Its status changes
		// when the last pod is gone, and brings us back.
		if s := rs.GetStatus(); s.GetReplicas() > 0 || s.GetObservedGeneration() < rs.GetMetadata().GetGeneration() {
			return nil
		}
		for _, p := range controller.ControlledBy(c.pods, rs.GetMetadata().GetUid()) {
			if !core.IsPodFinished(p) {
				return nil
			}
		}
	}
	return c.scaleAll(ctx, r, []scaling{{r.current.GetMetadata().GetName(), r.limits.replicas}})
}

// proportional is the step that follows a change of the deployment's size, or any size of a paused
// one; none when the ordinary step of the rollout does it all.
func (c *reconciler) proportional(r *rollout) []scaling {
	resized, paused := false, r.d.GetSpec().GetPaused()
	var live []*appsv1.ReplicaSet
	for _, rs := range r.all() {
		if rs.GetSpec().GetReplicas() == 0 {
			continue
		}
		live = append(live, rs)
		desired, ok := annotatedNumber(rs, annotationDesired)
		resized = resized || ok && desired != r.limits.replicas
	}
	if !resized && !paused {
		return nil
	}
	// One set only: there is no mix to keep. While paused and without pods, it is the current set or
	// else the newest.
	var only *appsv1.ReplicaSet
	switch {
	case len(live) == 1:
		only = live[0]
	case len(live) == 0 && len(r.all()) > 0:
		only = r.all()[len(r.all())-1]
	}
	switch {
	case only != nil && only.GetSpec().GetReplicas() != r.limits.replicas:
		return []scaling{{only.GetMetadata().GetName(), r.limits.replicas}}
	case len(live) < 2:
		return nil
	case r.current != nil && r.current.GetSpec().GetReplicas() == r.limits.replicas &&
		r.current.GetStatus().GetAvailableReplicas() == r.limits.replicas:
		var steps []scaling // the current set is whole: the old ones have had their time, even of a paused deployment
		for _, rs := range live {
			if rs != r.current {
				steps = append(steps, scaling{rs.GetMetadata().GetName(), 0})
			}
		}
		return steps
	case !resized || r.d.GetSpec().GetStrategy().GetType() == apps.StrategyRecreate:
		return nil
	}
	return planProportional(r.limits, allNumbers(live))
}

func numbers(rs *appsv1.ReplicaSet) replicas {
	maxReplicas, _ := annotatedNumber(rs, annotationMax)
	return replicas{
		name: rs.GetMetadata().GetName(), wanted: rs.GetSpec().GetReplicas(), actual: rs.GetStatus().GetReplicas(),
		available: rs.GetStatus().GetAvailableReplicas(), maxReplicas: maxReplicas, age: ageOf(rs),
	}
}

func allNumbers(sets []*appsv1.ReplicaSet) []replicas {
	all := make([]replicas, len(sets))
	for i, rs := range sets {
		all[i] = numbers(rs)
	}
	return all
}

// ageOf orders sets by when they were created.
func ageOf(rs *appsv1.ReplicaSet) int64 {
	return rs.GetMetadata().GetCreationTimestamp().AsTime().UnixNano()
}

func annotatedNumber(rs *appsv1.ReplicaSet, annotation string) (int32, bool) {
	n, err := strconv.ParseInt(rs.GetMetadata().GetAnnotations()[annotation], 10, 32)
	return int32(n), err == nil
}

// scaleAll gives sets their new sizes, and updates the annotations of every set that has pods.
func (c *reconciler) scaleAll(ctx context.Context, r *rollout, steps []scaling) error {
	to := map[string]int32{}
	for _, s := range steps {
		to[s.name] = s.to
	}
	for _, rs := range r.all() {
		n, scaled := to[rs.GetMetadata().GetName()]
		if !scaled {
			n = rs.GetSpec().GetReplicas()
		}
		changed := client.Clone(rs)
		changed.Spec.Replicas = &n
		if n > 0 || rs.GetSpec().GetReplicas() > 0 {
			annotateSize(changed, r)
		}
		if proto.Equal(rs, changed) {
			continue
		}
		if _, err := client.Update(ctx, c.client, changed); err != nil {
			return fmt.Errorf("scale replica set %s to %d: %w", rs.GetMetadata().GetName(), n, err)
		}
		if before := rs.GetSpec().GetReplicas(); before != n {
			direction := "up"
			if n < before {
				direction = "down"
			}
			c.events.Event(r.d, events.Normal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d",
				direction, rs.GetMetadata().GetName(), before, n)
		}
	}
	return nil
}

func annotateSize(rs *appsv1.ReplicaSet, r *rollout) {
	if rs.Metadata.Annotations == nil {
		rs.Metadata.Annotations = map[string]string{}
	}
	surge := r.limits.maxSurge
	if r.d.GetSpec().GetStrategy().GetType() == apps.StrategyRecreate {
		surge = 0
	}
	rs.Metadata.Annotations[annotationDesired] = strconv.Itoa(int(r.limits.replicas))
	rs.Metadata.Annotations[annotationMax] = strconv.Itoa(int(r.limits.replicas + surge))
}
