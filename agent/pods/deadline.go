package pods

import (
	"time"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// deadline reports whether the pod has been active longer than it may, and otherwise how long it
// still may, 0 for ever.
func (w *worker) deadline(pod *corev1.Pod) (failed bool, left time.Duration) {
	limit := pod.GetSpec().ActiveDeadlineSeconds
	if limit == nil {
		return false, 0
	}
	start := w.began
	if t := pod.GetStatus().GetStartTime(); t != nil {
		start = t.AsTime()
	}
	left = time.Until(start.Add(time.Duration(*limit) * time.Second))
	return left <= 0, max(left, 0)
}

// sooner returns the shorter of two waits, of which 0 stands for none.
func sooner(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}
