package controller

import (
	"container/heap"
	"sync"
	"time"

	"github.com/xebec-project/xebec/internal/backoff"
)

// retryMin and retryMax are the limits of a key's back-off.
const (
	retryMin = 5 * time.Millisecond
	retryMax = time.Minute
)

// queue holds the keys to reconcile: each at most once, however often it is added, and none while
// it is being reconciled. Its length is therefore bounded by the number of keys.
type queue struct {
	mu       sync.Mutex
	ready    sync.Cond // signalled when waiting grows or the queue closes
	waiting  []Key     // in the order in which they were added
	due      map[Key]time.Time
	active   map[Key]struct{}
	backoffs map[Key]*backoff.Backoff // of keys that failed
	delayed  delays
	timer    *time.Timer
	closed   bool
}

func newQueue() *queue {
	q := &queue{
		due:      map[Key]time.Time{},
		active:   map[Key]struct{}{},
		backoffs: map[Key]*backoff.Backoff{},
		delayed:  delays{at: map[Key]*delay{}},
	}
	q.ready.L = &q.mu
	return q
}

// add makes k due now. A key that is being reconciled becomes due again when that is done.
func (q *queue) add(k Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(k)
}

func (q *queue) addLocked(k Key) {
	if q.closed {
		return
	}
	if _, ok := q.due[k]; ok {
		return
	}
	q.due[k] = time.Now()
	if _, ok := q.active[k]; !ok {
		q.push(k)
	}
}

func (q *queue) push(k Key) {
	q.waiting = append(q.waiting, k)
	q.ready.Signal()
}

// addAfter makes k due after d, unless it is due sooner already.
func (q *queue) addAfter(k Key, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if d <= 0 {
		q.addLocked(k)
		return
	}
	if q.closed {
		return
	}
	q.delayed.add(k, time.Now().Add(d))
	q.arm()
}

// retry makes k due after the next pause of its back-off, which it returns.
func (q *queue) retry(k Key, err error) time.Duration {
	q.mu.Lock()
	b := q.backoffs[k]
	if b == nil {
		b = &backoff.Backoff{Min: retryMin, Max: retryMax}
		q.backoffs[k] = b
	}
	pause := b.Next(err)
	q.mu.Unlock()
	q.addAfter(k, pause)
	return pause
}

// forget ends the back-off of k.
func (q *queue) forget(k Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.backoffs, k)
}

// take waits for a key and marks it active, until done. It returns false once the queue is closed.
// waited is how long the key was due.
func (q *queue) take() (k Key, waited time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.ready.Wait()
	}
	if q.closed {
		return Key{}, 0, false
	}
	k = q.waiting[0]
	q.waiting[0] = Key{} // Frees the strings.
	q.waiting = q.waiting[1:]
	if len(q.waiting) == 0 {
		q.waiting = nil
	}
	waited = time.Since(q.due[k])
	delete(q.due, k)
	q.active[k] = struct{}{}
	return k, waited, true
}

// done marks a key that was taken as not active.
func (q *queue) done(k Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.active, k)
	if _, ok := q.due[k]; ok && !q.closed {
		q.push(k)
	}
}

// close drops the waiting keys and makes every take return.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.waiting = nil
	if q.timer != nil {
		q.timer.Stop()
	}
	q.ready.Broadcast()
}

// depth returns how many keys are due, and how many are active.
func (q *queue) depth() (due, active int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.due), len(q.active)
}

// arm sets the timer to the first delayed key.
func (q *queue) arm() {
	if q.delayed.Len() == 0 {
		return
	}
	d := time.Until(q.delayed.heap[0].at)
	if q.timer == nil {
		q.timer = time.AfterFunc(d, q.release)
		return
	}
	q.timer.Reset(d)
}

// release makes the delayed keys due whose time has come.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	for now := time.Now(); q.delayed.Len() > 0 && !q.delayed.heap[0].at.After(now); {
		q.addLocked(heap.Pop(&q.delayed).(*delay).key)
	}
	q.arm()
}

type delay struct {
	key   Key
	at    time.Time
	index int
}

// delays is a heap of keys by time, each key at most once.
type delays struct {
	heap []*delay
	at   map[Key]*delay
}

// add adds k at a time, or moves it to the time when that is sooner.
func (d *delays) add(k Key, at time.Time) {
	if e, ok := d.at[k]; ok {
		if at.Before(e.at) {
			e.at = at
			heap.Fix(d, e.index)
		}
		return
	}
	heap.Push(d, &delay{key: k, at: at})
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (d *delays) Len() int           { return len(d.heap) }
func (d *delays) Less(i, j int) bool { return d.heap[i].at.Before(d.heap[j].at) }
func (d *delays) Swap(i, j int) {
	d.heap[i], d.heap[j] = d.heap[j], d.heap[i]
	d.heap[i].index, d.heap[j].index = i, j
}
func (d *delays) Push(x any) {
	e := x.(*delay)
	e.index = len(d.heap)
	d.heap = append(d.heap, e)
	d.at[e.key] = e
}
func (d *delays) Pop() any {
	last := len(d.heap) - 1
	e := d.heap[last]
	d.heap[last] = nil
	d.heap = d.heap[:last]
	delete(d.at, e.key)
	return e
}
