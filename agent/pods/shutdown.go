package pods

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// criticalPriority is that from which on a pod is critical: the system's own priority classes
	// begin there.
	criticalPriority = 2_000_000_000
	// shutdownMargin is the time for writing the last statuses, and for killed containers to
	// terminate.
	shutdownMargin = 5 * time.Second

	reasonTerminated  = "Terminated"
	messageTerminated = "Pod was terminated in response to imminent node shutdown."
)

// shutdown is the order to end a pod because the node goes down.
type shutdown struct {
	since time.Time
	grace time.Duration
	over  chan struct{}
}

// Shutdown ends all pods because the node goes down: those of lower priority first, each with its
// own grace period as far as there is time. All together have total, of which the last, critical,
// is for critical pods alone. No pod is begun any more. It returns when nothing runs and the
// control plane knows, or when the time is over. Pods of files go on with the next agent; the
// others have failed.
func (s *Set) Shutdown(ctx context.Context, total, critical time.Duration) {
	s.mu.Lock()
	s.closed = true
	levels := map[int32][]*worker{}
	for _, w := range s.workers {
		w.mu.Lock()
		priority := w.pod.GetSpec().GetPriority()
		w.mu.Unlock()
		levels[priority] = append(levels[priority], w)
	}
	s.mu.Unlock()
	began := time.Now()
	for _, priority := range sortedKeys(levels) {
		end := began.Add(total - critical)
		if priority >= criticalPriority {
			end = began.Add(total)
		}
		var orders []*shutdown
		for _, w := range levels[priority] {
			orders = append(orders, w.shutDown(time.Until(end)))
		}
		s.cfg.Log.Info("Stopping pods for node shutdown", zap.Int32(metrics.KeyPriority, priority), zap.Int(metrics.KeyPods, len(orders)))
		late := time.NewTimer(time.Until(end) + shutdownMargin)
		for _, o := range orders {
			select {
			case <-o.over:
			case <-late.C:
				late.Reset(0)
			case <-ctx.Done():
			}
		}
		late.Stop()
	}
	settle, cancel := context.WithTimeout(ctx, shutdownMargin)
	defer cancel()
	s.mu.Lock()
	all := make([]*worker, 0, len(s.workers))
	for _, w := range s.workers {
		all = append(all, w)
	}
	s.mu.Unlock()
	for _, w := range all {
		w.publisher.Settle(settle)
	}
}

func sortedKeys(m map[int32][]*worker) []int32 {
	out := make([]int32, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// shutDown orders the pod to end within its grace period and what is left of the node's.
func (w *worker) shutDown(left time.Duration) *shutdown {
	w.mu.Lock()
	defer w.mu.Unlock()
	grace := time.Duration(graceSeconds(w.pod)) * time.Second
	w.ending = &shutdown{since: time.Now(), grace: max(min(grace, left), 0), over: make(chan struct{})}
	w.nudge()
	return w.ending
}

// fromFile reports whether the pod comes from a file of the node, which is not the control plane's
// to replace.
func fromFile(pod *corev1.Pod) bool {
	return pod.GetMetadata().GetAnnotations()["kubernetes.io/config.source"] == "file"
}

// endForShutdown ends a pod of a node that goes down. It returns false while the node does not.
func (w *worker) endForShutdown(ctx context.Context, pod *corev1.Pod) (ending bool, next time.Duration, err error) {
	w.mu.Lock()
	order := w.ending
	w.mu.Unlock()
	if order == nil {
		return false, 0, nil
	}
	next, err = w.stopAll(ctx, pod, order.since, order.grace)
	if err != nil || next > 0 {
		return true, next, err
	}
	why := status.Cause{Reason: reasonTerminated, Message: messageTerminated}
	if fromFile(pod) || w.done(pod) {
		why = status.Cause{}
	}
	w.publish(pod, why, false)
	select {
	case <-order.over:
	default:
		close(order.over)
	}
	return true, 0, nil
}
