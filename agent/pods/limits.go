package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/volumes"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// measure watches what the pod uses of the disk until that is more than it may or ctx ends.
func (w *worker) measure(ctx context.Context, pod *corev1.Pod) {
	limits := resources.DiskLimitsOf(pod)
	if w.measuring || len(limits.Volumes)+len(limits.Containers) == 0 {
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
			limit, message, err := w.beyond(ctx, limits)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				// The volumes are not made yet, or the pod has ended and they are gone.
			case err != nil:
				w.log.Debug("Failed to measure the pod's disk usage", zap.Error(err))
			case message != "":
				w.evict(limit, message, 0)
				return
			}
		}
	})
}

// beyond returns which limit the pod exceeds, and what to say to that; nothing when it keeps them
// all. The error wraps fs.ErrNotExist while the pod has no volumes.
func (w *worker) beyond(ctx context.Context, limits resources.DiskLimits) (eviction.Signal, string, error) {
	for _, name := range slices.Sorted(maps.Keys(limits.Volumes)) {
		used, err := volumes.Usage(w.dir.Volume(name))
		if err != nil {
			return "", "", fmt.Errorf("reading the usage of volume %s: %w", name, err)
		}
		if q := resources.Quantity(limits.Volumes[name]); used > q.Value() {
			return eviction.EmptyDirLimit, fmt.Sprintf(
				"Usage of EmptyDir volume %q exceeds the limit %q.",
				name,
				limits.Volumes[name].GetString_(),
			), nil
		}
	}
	if limits.Total == nil {
		return "", "", nil
	}
	written, err := w.cfg.Runtime.DiskUsage(ctx, w.uid)
	if err != nil {
		return "", "", err
	}
	total, err := usage(w.dir.Volume(""))
	if err != nil {
		return "", "", err
	}
	w.mu.Lock()
	instances := maps.Clone(w.instances)
	w.mu.Unlock()
	var over string
	for _, name := range slices.Sorted(maps.Keys(instances)) {
		used, err := usage(filepath.Dir(w.dir.Log(name, 0)))
		if err != nil {
			return "", "", err
		}
		used += written[instances[name].id]
		total += used
		if q := resources.Quantity(limits.Containers[name]); over == "" && limits.Containers[name] != nil && used > q.Value() {
			over = fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q.", name, limits.Containers[name].GetString_())
		}
	}
	if total > limits.Total.Value() {
		return eviction.PodLimit, fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s.", limits.Total), nil
	}
	return eviction.ContainerLimit, over, nil
}

// usage is the disk that a directory takes, none if there is none.
func usage(dir string) (int64, error) {
	used, err := volumes.Usage(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return used, err
}

// evict makes the worker end the pod for good. A pod that has taken more than its share already
// gets no grace. The limit is that of its own which it exceeds, empty for none.
func (w *worker) evict(limit eviction.Signal, message string, grace time.Duration) {
	w.mu.Lock()
	w.evicted = evicted{why: status.Cause{Reason: status.ReasonEvicted, Message: message}, limit: limit, since: time.Now(), grace: grace}
	w.mu.Unlock()
	w.nudge()
}

// evicted is a pod's end by the node's decision; its reason is empty while there is none.
type evicted struct {
	why   status.Cause
	limit eviction.Signal
	since time.Time
	grace time.Duration
}

// endEvicted kills what runs of an evicted pod and then tells that it failed. It returns false for
// a pod that was not evicted.
func (w *worker) endEvicted(ctx context.Context, pod *corev1.Pod) (evicted bool, next time.Duration, err error) {
	w.mu.Lock()
	order := w.evicted
	w.mu.Unlock()
	if order.why.Reason == "" {
		return false, 0, nil
	}
	if order.limit != "" && !w.counted {
		w.counted = true
		w.cfg.Evictions.Count(order.limit)
	}
	next, err = w.stopAll(ctx, pod, order.since, order.grace)
	if err == nil && next == 0 {
		w.cfg.Recorder.Event(pod, "Warning", status.ReasonEvicted, order.why.Message)
		w.publish(pod, order.why, false)
	}
	return true, next, err
}
