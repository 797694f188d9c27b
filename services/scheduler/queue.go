package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Backoff of a pod that could not be placed or bound, doubling from the least to the most. The first is short: what helps
// a pod often comes right after it was looked at.
const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
	// retryAll is how long a pod waits at most for something that could help it.
	retryAll = 5 * time.Minute
)

// waiting is a pod that has no node.
type waiting struct {
	pod      *framework.Pod
	since    time.Time
	attempts int
	// notBefore holds the pod back after a failure.
	notBefore time.Time
	// parked says that it fits nowhere, and refusedBy which filters said so: it waits for a change that could matter to
	// one of them.
	parked    bool
	parkedAt  time.Time
	refusedBy []string
	index     int // in the heap, -1 outside
}

// queue holds the pods that wait, by uid. Ready ones come out by priority and then by age.
type queue struct {
	pods  map[string]*waiting
	ready readyHeap
	// held are those in backoff. There are few, and they are looked through whole.
	held []*waiting
}

func newQueue() *queue { return &queue{pods: map[string]*waiting{}} }

// add puts a pod in, or takes note of its change, which makes a parked pod ready again.
func (q *queue) add(p *framework.Pod, now time.Time) {
	w := q.pods[p.UID]
	if w == nil {
		w = &waiting{since: now, index: -1}
		q.pods[p.UID] = w
		w.pod = p
		q.release(w, now)
		return
	}
	w.pod = p
	if w.parked {
		q.release(w, now)
	}
}

// remove forgets a pod.
func (q *queue) remove(uid string) {
	w := q.pods[uid]
	if w == nil {
		return
	}
	delete(q.pods, uid)
	if w.index >= 0 {
		heap.Remove(&q.ready, w.index)
	}
	q.held = slices.DeleteFunc(q.held, func(h *waiting) bool { return h == w })
}

// release makes a pod ready, or holds it until its backoff is over.
func (q *queue) release(w *waiting, now time.Time) {
	w.parked = false
	if w.notBefore.After(now) {
		if !slices.Contains(q.held, w) {
			q.held = append(q.held, w)
		}
		return
	}
	if w.index < 0 {
		heap.Push(&q.ready, w)
	}
}

// take removes up to n ready pods from the queue's front. Each is given back by park, retry or remove.
func (q *queue) take(n int, now time.Time) []*waiting {
	q.held = slices.DeleteFunc(q.held, func(w *waiting) bool {
		if w.notBefore.After(now) {
			return false
		}
		if w.index < 0 {
			heap.Push(&q.ready, w)
		}
		return true
	})
	for _, w := range q.pods {
		if w.parked && now.Sub(w.parkedAt) >= retryAll {
			q.release(w, now)
		}
	}
	var batch []*waiting
	for len(batch) < n && q.ready.Len() > 0 {
		batch = append(batch, heap.Pop(&q.ready).(*waiting))
	}
	return batch
}

// next is when a held or parked pod becomes due, false when none waits for the clock.
func (q *queue) next() (at time.Time, ok bool) {
	for _, w := range q.held {
		if !ok || w.notBefore.Before(at) {
			at, ok = w.notBefore, true
		}
	}
	for _, w := range q.pods {
		if due := w.parkedAt.Add(retryAll); w.parked && (!ok || due.Before(at)) {
			at, ok = due, true
		}
	}
	return at, ok
}

// fail counts a failed attempt and returns until when the pod is held back.
func (w *waiting) fail(now time.Time) {
	w.attempts++
	w.notBefore = now.Add(min(backoffMin<<min(w.attempts-1, 10), backoffMax))
}

// park sets a pod aside that fits nowhere.
func (q *queue) park(w *waiting, refusedBy []string, now time.Time) {
	if q.pods[w.pod.UID] != w {
		return // removed meanwhile
	}
	w.fail(now)
	w.parked, w.parkedAt, w.refusedBy = true, now, refusedBy
}

// retry puts a pod back whose binding failed.
func (q *queue) retry(w *waiting, now time.Time) {
	if q.pods[w.pod.UID] != w {
		return
	}
	w.fail(now)
	q.release(w, now)
}

// wake releases the parked pods that one of the filters had refused, or that found no nodes at all.
func (q *queue) wake(now time.Time, filters ...string) {
	for _, w := range q.pods {
		if w.parked && (len(w.refusedBy) == 0 || slices.ContainsFunc(w.refusedBy, func(f string) bool { return slices.Contains(filters, f) })) {
			q.release(w, now)
		}
	}
}

// readyHeap orders pods by priority, the highest first, and then by how long they wait.
type readyHeap []*waiting

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (h readyHeap) Len() int { return len(h) }

// Less reports whether i comes out before j.
func (h readyHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(b.pod.Priority, a.pod.Priority), a.since.Compare(b.since), cmp.Compare(a.pod.Name, b.pod.Name)) < 0
}

// Swap exchanges two.
func (h readyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push appends.
func (h *readyHeap) Push(x any) {
	w := x.(*waiting)
	w.index = len(*h)
	*h = append(*h, w)
}

// Pop removes the last.
func (h *readyHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.index = -1
	return w
}
