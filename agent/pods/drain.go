package pods

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Drain knows when pods have left the service maps of all nodes. Package drain is the real one.
type Drain interface {
	// Left returns nil once no node sends the pod new connections by a service, and an error when that
	// is not known by ctx's
	// end. A pod that is gone is not in the API any more.
	Left(ctx context.Context, pod *corev1.Pod, gone bool) error
}

// drain waits until all nodes have removed a deleted pod from their service maps. It returns the
// maximum time that the pod's containers continue, 0 when they may get the stop signal. It wakes
// the worker when the wait ends earlier.
func (w *worker) drain(ctx context.Context, pod *corev1.Pod, gone bool, since time.Time, grace time.Duration) time.Duration {
	limit := grace / 2
	if w.cfg.Drain == nil {
		limit = min(limit, w.cfg.DrainDelay)
	} else {
		limit = min(limit, w.cfg.DrainTimeout+w.cfg.DrainDelay)
	}
	end := since.Add(limit)
	left := time.Until(end)
	if left <= 0 {
		return 0
	}
	if w.drained == nil {
		w.drained = make(chan struct{})
		w.wg.Go(func() {
			defer w.nudge()
			defer close(w.drained)
			ctx, cancel := context.WithDeadline(ctx, end)
			defer cancel()
			w.leave(ctx, pod, gone)
		})
	}
	select {
	case <-w.drained:
		return 0
	default:
		return left
	}
}

// leave waits until all nodes have dropped the pod, and then for the connections that were on their
// way.
func (w *worker) leave(ctx context.Context, pod *corev1.Pod, gone bool) {
	if w.cfg.Drain != nil {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, w.cfg.DrainTimeout)
		defer cancel()
		if err := w.cfg.Drain.Left(limited, pod, gone); err != nil {
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return
			}
			w.log.Warn("Stopping the pod before all nodes removed it from their service maps", zap.Error(err))
			w.cfg.Recorder.Event(
				pod,
				"Warning",
				"NotDrained",
				"Stopping the containers before all nodes removed the pod from their service maps: "+err.Error(),
			)
			return
		}
		w.log.Debug("All nodes removed the pod from their service maps", zap.Duration(metrics.KeyDuration, time.Since(began)))
	}
	timer := time.NewTimer(w.cfg.DrainDelay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
