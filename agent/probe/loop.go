package probe

import (
	"cmp"
	"context"
	"time"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Loop runs a check periodically, and reports when a threshold of successes or failures is reached.
type Loop struct {
	// Probe gives the times and thresholds; zero values stand for Kubernetes' defaults.
	Probe *corev1.Probe
	// StartedAt is when the container started, which the initial delay counts from.
	StartedAt time.Time
	// Healthy is the result until a threshold is reached.
	Healthy bool
	// Check runs the check once, within the probe's timeout.
	Check func(ctx context.Context) error
	// Failed is called with every failure; it may be nil.
	Failed func(error)
	// Changed is called with each change of the result.
	Changed func(healthy bool, cause error)
}

// Run runs the loop until ctx is done.
func (l Loop) Run(ctx context.Context) {
	var (
		period    = time.Duration(cmp.Or(l.Probe.GetPeriodSeconds(), 10)) * time.Second
		timeout   = time.Duration(cmp.Or(l.Probe.GetTimeoutSeconds(), 1)) * time.Second
		needed    = map[bool]int32{true: cmp.Or(l.Probe.GetSuccessThreshold(), 1), false: cmp.Or(l.Probe.GetFailureThreshold(), 3)}
		healthy   = l.Healthy
		last      bool
		inARow    int32
		next      = time.NewTimer(max(0, time.Until(l.StartedAt.Add(time.Duration(l.Probe.GetInitialDelaySeconds())*time.Second))))
		unstarted = true
	)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		next.Reset(period)
		once, cancel := context.WithTimeout(ctx, timeout)
		err := l.Check(once)
		cancel()
		if ctx.Err() != nil {
			return
		}
		ok := err == nil
		if !ok && l.Failed != nil {
			l.Failed(err)
		}
		if unstarted || ok != last {
			inARow, last, unstarted = 0, ok, false
		}
		inARow++
		if ok != healthy && inARow >= needed[ok] {
			healthy = ok
			l.Changed(ok, err)
		}
	}
}
