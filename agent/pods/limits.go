package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/volumes"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// reasonEvicted is why a pod failed that used more of the node than it may.
const reasonEvicted = "Evicted"

// limited returns the pod's volumes on disk that have a limit, and the limits. The kernel itself bounds those in memory.
func limited(pod *corev1.Pod) map[string]int64 {
	out := map[string]int64{}
	for _, v := range pod.GetSpec().GetVolumes() {
		e := v.GetVolumeSource().GetEmptyDir()
		if q := quantity(e.GetSizeLimit()); e != nil && e.GetMedium() != "Memory" && !q.IsZero() {
			out[v.GetName()] = q.Value()
		}
	}
	return out
}

// measure watches the sizes of the pod's limited volumes until one is too large or ctx ends. It is started once the
// volumes are made.
func (w *worker) measure(ctx context.Context, pod *corev1.Pod) {
	limits := limited(pod)
	if len(limits) == 0 || w.measuring {
		return
	}
	w.measuring = true
	w.wg.Go(func() {
		tick := time.NewTicker(w.cfg.MeasureEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, v := range pod.GetSpec().GetVolumes() {
				limit, ok := limits[v.GetName()]
				if !ok {
					continue
				}
				used, err := volumes.Usage(w.dir.volume(v.GetName()))
				if errors.Is(err, fs.ErrNotExist) {
					// The pod has ended, and its volumes are gone.
					return
				}
				if err != nil {
					w.log.Debug("Volume not measured", zap.String("volume", v.GetName()), zap.Error(err))
					continue
				}
				if used > limit {
					w.evict(fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q.", v.GetName(), v.GetVolumeSource().GetEmptyDir().GetSizeLimit().GetString_()), 0)
					return
				}
			}
		}
	})
}

// evict makes the worker end the pod for good. A pod that has taken more than its share already gets no grace.
func (w *worker) evict(message string, grace time.Duration) {
	w.mu.Lock()
	w.evicted = eviction{cause: cause{reasonEvicted, message}, since: time.Now(), grace: grace}
	w.mu.Unlock()
	w.nudge()
}

// eviction is a pod's end by the node's decision; its reason is empty while there is none.
type eviction struct {
	cause
	since time.Time
	grace time.Duration
}

// endEvicted kills what runs of an evicted pod and then tells that it failed. It returns false for a pod that was not
// evicted.
func (w *worker) endEvicted(ctx context.Context, pod *corev1.Pod) (evicted bool, next time.Duration, err error) {
	w.mu.Lock()
	why := w.evicted
	w.mu.Unlock()
	if why.reason == "" {
		return false, 0, nil
	}
	next, err = w.stopAll(ctx, pod, why.since, why.grace)
	if err == nil && next == 0 {
		w.cfg.Recorder.Event(pod, "Warning", reasonEvicted, why.message)
		w.publish(pod, why.cause, false)
	}
	return true, next, err
}
