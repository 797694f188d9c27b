package eviction

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
)

// settle is the time that an evicted pod may take to terminate before the next one is evicted.
const settle = 30 * time.Second

// Observation is the capacity and the available amount of a resource.
type Observation struct{ Available, Capacity int64 }

// Config has the thresholds and functions of an Evictor.
type Config struct {
	Thresholds []Threshold
	// Every is the interval of observations.
	Every time.Duration
	// Transition is the time that a condition stays after its threshold was last crossed, so that it
	// does not flap.
	Transition time.Duration
	// MaxGrace is the maximum grace period of a pod that is evicted for a soft threshold.
	MaxGrace time.Duration

	// Observe returns the available resources of the node. A signal that is absent is not watched.
	Observe func(context.Context) (map[Signal]Observation, error)
	// Pods returns the pods that run, with what they use.
	Pods func(context.Context, Signal) ([]Pod, error)
	// Reclaim frees disk space without evicting a pod.
	Reclaim func(context.Context) error
	// Evict evicts a pod.
	Evict func(uid, message string, grace time.Duration)
	// Changed is called with the conditions of the node when they change, and at the start.
	Changed func(map[Pressure]bool)
	Metrics *Metrics
	Log     *zap.Logger
}

// Evictor watches a node. It is made by New and run once.
type Evictor struct {
	cfg Config
	// since is when each threshold was first found to be crossed, last when each condition last was.
	since    map[int]time.Time
	last     map[Pressure]time.Time
	reported map[Pressure]bool
	// going is the pod that was evicted last, while it terminates.
	going   string
	evicted time.Time
}

// New returns an evictor.
func New(cfg Config) *Evictor {
	return &Evictor{cfg: cfg, since: map[int]time.Time{}, last: map[Pressure]time.Time{}}
}

// Run works until ctx ends.
func (e *Evictor) Run(ctx context.Context) error {
	tick := time.NewTicker(e.cfg.Every)
	defer tick.Stop()
	for {
		if err := e.step(ctx, time.Now()); err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("Failed to measure the node's resources", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// step observes the node once, and evicts at most one pod.
func (e *Evictor) step(ctx context.Context, now time.Time) error {
	seen, err := e.cfg.Observe(ctx)
	if err != nil {
		return err
	}
	due := e.crossed(seen, now)
	e.report(now)
	if len(due) == 0 {
		return nil
	}
	slices.SortStableFunc(due, func(a, b int) int {
		return slices.Index(signals, e.cfg.Thresholds[a].Signal) - slices.Index(signals, e.cfg.Thresholds[b].Signal)
	})
	t := e.cfg.Thresholds[due[0]]
	if t.Signal.pressure() == DiskPressure && e.cfg.Reclaim != nil {
		if err := e.cfg.Reclaim(ctx); err != nil {
			e.cfg.Log.Warn("Failed to reclaim resources without evicting pods", zap.Error(err))
		}
		if seen, err = e.cfg.Observe(ctx); err != nil {
			return err
		}
		if !slices.Contains(e.crossed(seen, now), due[0]) {
			return nil
		}
	}
	pods, err := e.cfg.Pods(ctx, t.Signal)
	if err != nil {
		return err
	}
	if e.going != "" && now.Sub(e.evicted) < settle &&
		slices.ContainsFunc(pods, func(p Pod) bool { return p.GetMetadata().GetUid() == e.going }) {
		// Its resources are not free yet.
		return nil
	}
	ranked := rank(slices.DeleteFunc(pods, func(p Pod) bool { return p.GetMetadata().GetUid() == e.going }), t.Signal)
	if len(ranked) == 0 {
		e.cfg.Log.Warn(
			"Node is under pressure and has no pod to evict",
			zap.String(metrics.KeySignal, string(t.Signal)),
			zap.Int64(metrics.KeyAvailable, seen[t.Signal].Available),
		)
		return nil
	}
	victim := ranked[0]
	why := message(victim, t, seen[t.Signal])
	e.cfg.Log.Warn(
		"Evicting pod",
		zap.String(metrics.KeyPod, victim.GetMetadata().GetNamespace()+"/"+victim.GetMetadata().GetName()),
		zap.String(metrics.KeyReason, why),
	)
	var grace time.Duration
	if t.Grace > 0 {
		grace = min(e.cfg.MaxGrace, time.Duration(victim.GetSpec().GetTerminationGracePeriodSeconds())*time.Second)
	}
	e.going, e.evicted = victim.GetMetadata().GetUid(), now
	e.cfg.Evict(e.going, why, grace)
	e.cfg.Metrics.Count(t.Signal)
	return nil
}

// crossed notes which thresholds are crossed and returns those that have been for their grace
// period. One that was crossed is so until its minimum reclaim is left on top.
func (e *Evictor) crossed(seen map[Signal]Observation, now time.Time) (due []int) {
	for i, t := range e.cfg.Thresholds {
		o, ok := seen[t.Signal]
		least := t.Least.Of(o.Capacity)
		if _, before := e.since[i]; before {
			least += t.Reclaim.Of(o.Capacity)
		}
		if !ok || o.Available >= least {
			delete(e.since, i)
			continue
		}
		if e.since[i].IsZero() {
			e.since[i] = now
		}
		e.last[t.Signal.pressure()] = now
		if now.Sub(e.since[i]) >= t.Grace {
			due = append(due, i)
		}
	}
	return due
}

// report reports the conditions when they have changed.
func (e *Evictor) report(now time.Time) {
	is := map[Pressure]bool{}
	for _, p := range Pressures {
		at, ever := e.last[p]
		is[p] = ever && (at.Equal(now) || now.Sub(at) < e.cfg.Transition)
	}
	if e.reported != nil && maps.Equal(is, e.reported) {
		return
	}
	e.reported = is
	e.cfg.Changed(maps.Clone(is))
}
