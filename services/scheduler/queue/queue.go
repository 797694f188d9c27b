// Package queue holds the pods that wait for a node. A pod is in one of three places: ready to be
// scheduled, in back-off after a failure, or unschedulable until an event that can help it.
package queue

import (
	"container/heap"
	"time"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// The back-off of a pod that could not be scheduled or bound doubles from BackoffMin to BackoffMax.
// The first is short: what helps a pod often happens right after the attempt.
const (
	BackoffMin = 100 * time.Millisecond
	BackoffMax = 10 * time.Second
	// UnschedulableMax is how long a pod stays unschedulable at most without an event.
	UnschedulableMax = 5 * time.Minute
)

// Pod is a pod in the queue.
type Pod struct {
	// Pod is the latest version of the pod.
	*framework.Pod

	since     time.Time
	attempts  int
	notBefore time.Time // the end of the back-off
	refusedBy []string  // the plug-ins, while it is unschedulable
	retryAt   time.Time // at the latest, while it is unschedulable

	place *pods // nil while the pod is being scheduled or bound
	index int   // in place
}

// Queue holds the pods that wait, each once, so it is bounded by the number of pods. It is not safe
// for concurrent use. Pods that are being scheduled or bound stay known to it until Remove.
type Queue struct {
	helps         func(p *framework.Pod, refusedBy []string, e framework.Event) bool
	pods          map[string]*Pod // by uid
	ready         pods            // by priority, then by age
	backoff       pods            // by the end of the back-off
	unschedulable pods            // by the time of the next attempt
}

// New returns an empty queue. helps reports whether an event can let a pod fit that these plug-ins
// refused, as framework.Profile's method does.
func New(helps func(p *framework.Pod, refusedBy []string, e framework.Event) bool) *Queue {
	return &Queue{
		helps: helps, pods: map[string]*Pod{},
		ready:         pods{less: comesFirst},
		backoff:       pods{less: func(a, b *Pod) bool { return a.notBefore.Before(b.notBefore) }},
		unschedulable: pods{less: func(a, b *Pod) bool { return a.retryAt.Before(b.retryAt) }},
	}
}

// Add puts a pod into the queue, or notes its change, which makes an unschedulable pod ready again.
func (q *Queue) Add(p *framework.Pod, now time.Time) {
	w := q.pods[p.UID]
	if w == nil {
		w = &Pod{Pod: p, since: now}
		q.pods[p.UID] = w
		q.ready.push(w)
		return
	}
	w.Pod = p
	switch w.place {
	case &q.unschedulable:
		q.release(w, now)
	case &q.ready:
		heap.Fix(&q.ready, w.index)
	}
}

// Remove forgets a pod.
func (q *Queue) Remove(uid string) {
	if w := q.pods[uid]; w != nil {
		w.leave()
		delete(q.pods, uid)
	}
}

// Pop takes up to n ready pods out of the queue, the first ones. Each returns by MarkUnschedulable
// or Retry, or is removed.
func (q *Queue) Pop(n int, now time.Time) []*Pod {
	for len(q.backoff.pods) > 0 && !q.backoff.pods[0].notBefore.After(now) {
		q.release(q.backoff.pods[0], now)
	}
	for len(q.unschedulable.pods) > 0 && !q.unschedulable.pods[0].retryAt.After(now) {
		q.release(q.unschedulable.pods[0], now)
	}
	batch := make([]*Pod, 0, min(n, len(q.ready.pods)))
	for len(batch) < cap(batch) {
		w := q.ready.pods[0]
		w.leave()
		batch = append(batch, w)
	}
	return batch
}

// Has reports whether a pod is known to the queue.
func (q *Queue) Has(uid string) bool { return q.pods[uid] != nil }

// Take takes a pod out of the queue wherever it waits, back-off or not. It returns nil for a pod
// that is not known or is being scheduled or bound. The pod returns as after Pop.
func (q *Queue) Take(uid string) *Pod {
	w := q.pods[uid]
	if w == nil || w.place == nil {
		return nil
	}
	w.leave()
	return w
}

// Next returns when a pod becomes ready by time alone, false when none does.
func (q *Queue) Next() (at time.Time, ok bool) {
	if len(q.backoff.pods) > 0 {
		at, ok = q.backoff.pods[0].notBefore, true
	}
	if len(q.unschedulable.pods) > 0 && (!ok || q.unschedulable.pods[0].retryAt.Before(at)) {
		at, ok = q.unschedulable.pods[0].retryAt, true
	}
	return at, ok
}

// MarkUnschedulable puts back a pod that fits on no node, with the plug-ins that refused nodes.
func (q *Queue) MarkUnschedulable(w *Pod, refusedBy []string, now time.Time) {
	if q.pods[w.UID] != w {
		return // removed while it was being scheduled
	}
	w.fail(now)
	w.refusedBy, w.retryAt = refusedBy, now.Add(UnschedulableMax)
	q.unschedulable.push(w)
}

// Retry puts back a pod that could not be bound.
func (q *Queue) Retry(w *Pod, now time.Time) {
	if q.pods[w.UID] != w {
		return
	}
	w.fail(now)
	q.release(w, now)
}

// Activate makes a pod ready that is unschedulable, when its back-off is over.
func (q *Queue) Activate(uid string, now time.Time) {
	if w := q.pods[uid]; w != nil && w.place == &q.unschedulable {
		q.release(w, now)
	}
}

// Move makes the unschedulable pods ready that an event can help, each when its back-off is over.
func (q *Queue) Move(e framework.Event, now time.Time) {
	var helped []*Pod
	for _, w := range q.unschedulable.pods {
		if q.helps(w.Pod, w.refusedBy, e) {
			helped = append(helped, w)
		}
	}
	for _, w := range helped {
		q.release(w, now)
	}
}

// release makes a pod ready, or puts it into back-off until that is over.
func (q *Queue) release(w *Pod, now time.Time) {
	w.leave()
	if w.notBefore.After(now) {
		q.backoff.push(w)
	} else {
		q.ready.push(w)
	}
}

// fail counts a failed attempt.
func (w *Pod) fail(now time.Time) {
	w.attempts++
	w.notBefore = now.Add(min(BackoffMin<<min(w.attempts-1, 10), BackoffMax))
}
