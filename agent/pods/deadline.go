package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func (d dir) began() string { return filepath.Join(string(d), "began") }

// loadBegan returns when the pod came to the node, now for one that has just come.
func (d dir) loadBegan(pod *corev1.Pod) time.Time {
	if t := pod.GetStatus().GetStartTime(); t != nil {
		return t.AsTime()
	}
	if b, err := os.ReadFile(d.began()); err == nil {
		if at, err := time.Parse(time.RFC3339Nano, string(b)); err == nil {
			return at
		}
	}
	return time.Now()
}

// saveBegan writes down when the pod came to the node, for an agent that starts before the control plane was told.
func (w *worker) saveBegan(pod *corev1.Pod) error {
	if pod.GetStatus().GetStartTime() != nil {
		return nil
	}
	if _, err := os.Stat(w.dir.began()); err == nil {
		return nil
	}
	if err := writeFile(w.dir.began(), []byte(w.began.Format(time.RFC3339Nano)), 0o600); err != nil {
		return fmt.Errorf("noting when the pod began: %w", err)
	}
	return nil
}

// deadline reports whether the pod has been active longer than it may, and otherwise how long it still may, 0 for ever.
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
