package fairness

import (
	"container/list"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// retryFirst is the delay after a refusal while few calls wait; it grows by itself with each share
	// of seats that wait.
	retryFirst = 250 * time.Millisecond
	// retryMost bounds the delay before it is spread.
	retryMost = 10 * time.Second
)

// Dispatcher hands out the seats of one server. It is safe for concurrent use.
type Dispatcher struct {
	queues Queues

	mu     sync.Mutex
	states [levelCount]state
	// spare is how many seats are neither in use nor kept for a level. While calls wait there is none,
	// and their levels use all that is kept for them.
	spare int
}

// state is that of one level.
type state struct {
	nominal int // the guaranteed seats
	kept    int // of those, what no other level borrows
	inUse   int
	waiting int
	flows   map[string]*flow // callers with calls that wait
	turns   list.List        // of *flow, the next one first
}

// flow is one caller's queue in a level. It exists while calls wait in it.
type flow struct {
	caller string
	turn   *list.Element
	queue  list.List // of *waiter, oldest first
}

// waiter is a call that waits.
type waiter struct {
	flow    *flow
	place   *list.Element // nil once it has a seat or has given up
	granted chan struct{}
}

// New returns a dispatcher with all seats free.
func New(cfg Config) *Dispatcher {
	if cfg.Seats == 0 {
		cfg.Seats = DefaultSeats()
	}
	seats := max(cfg.Seats, MinSeats)
	d := &Dispatcher{queues: cfg.Queues.WithDefaults(), spare: seats}
	for l, n := range nominal(seats) {
		kept := (n + 1) / 2
		d.states[l] = state{nominal: n, kept: kept, flows: make(map[string]*flow)}
		d.spare -= kept
	}
	return d
}

// Seat is what a call holds while it is worked on. The zero Seat is none.
type Seat struct {
	dispatcher *Dispatcher
	level      Level
	// Waited is how long the call waited for it.
	Waited time.Duration
}

// Release gives the seat back. It does nothing when that was done already; one goroutine at a time
// may call it.
func (s *Seat) Release() {
	if s.dispatcher != nil {
		s.dispatcher.release(s.level)
		s.dispatcher = nil
	}
}

// Held reports whether the seat has not been given back.
func (s *Seat) Held() bool { return s.dispatcher != nil }

// Enter waits for a seat. The error is ctx's, or a *RefusedError when too many calls wait or this
// one waited for too long; the call has left the queue then. The caller releases the seat.
func (d *Dispatcher) Enter(ctx context.Context, level Level, caller string) (Seat, error) {
	d.mu.Lock()
	if d.take(level) {
		d.mu.Unlock()
		return Seat{dispatcher: d, level: level}, nil
	}
	if err := ctx.Err(); err != nil {
		d.mu.Unlock()
		return Seat{}, err
	}
	w, refused := d.enqueue(level, caller)
	d.mu.Unlock()
	if refused != nil {
		return Seat{}, refused
	}
	return d.await(ctx, level, w)
}

// take takes a seat for a level if that does not have to wait. The caller holds d.mu.
func (d *Dispatcher) take(level Level) bool {
	s := &d.states[level]
	if s.inUse >= s.kept {
		if d.spare == 0 {
			return false
		}
		d.spare--
	}
	s.inUse++
	return true
}

// enqueue puts a call into its caller's queue, or refuses it. The caller holds d.mu.
func (d *Dispatcher) enqueue(level Level, caller string) (*waiter, *RefusedError) {
	s := &d.states[level]
	room := d.queues.PerLevel - s.waiting
	if room <= 0 {
		return nil, d.refuse(level, ReasonLevel, 0)
	}
	f := s.flows[caller]
	// The queue of one caller may be as long as what is left for all, so that some room is left for
	// others at any time (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory
	// Packet Switches", 1998).
	if f != nil && f.queue.Len() >= min(d.queues.PerCaller, room) {
		return nil, d.refuse(level, ReasonCaller, 0)
	}
	if f == nil {
		f = &flow{caller: caller}
		f.turn = s.turns.PushBack(f)
		s.flows[caller] = f
	}
	w := &waiter{flow: f, granted: make(chan struct{})}
	w.place = f.queue.PushBack(w)
	s.waiting++
	return w, nil
}

// await waits until a call has its seat or gives up.
func (d *Dispatcher) await(ctx context.Context, level Level, w *waiter) (Seat, error) {
	began := time.Now()
	limit := time.NewTimer(d.queues.MaxWait)
	defer limit.Stop()
	var gaveUp error
	select {
	case <-w.granted:
	case <-ctx.Done():
		gaveUp = ctx.Err()
	case <-limit.C:
	}
	waited := time.Since(began)
	d.mu.Lock()
	granted := w.place == nil
	var refused *RefusedError
	if !granted {
		d.remove(level, w)
		refused = d.refuse(level, ReasonWait, waited)
	}
	d.mu.Unlock()
	switch {
	case gaveUp != nil:
		// The seat may have come at the same time: others wait for it.
		if granted {
			d.release(level)
		}
		return Seat{}, gaveUp
	case granted:
		return Seat{dispatcher: d, level: level, Waited: waited}, nil
	}
	return Seat{}, refused
}

// remove takes a call out of its queue, and the queue out of the turns when it is empty. The caller
// holds d.mu.
func (d *Dispatcher) remove(level Level, w *waiter) {
	s := &d.states[level]
	w.flow.queue.Remove(w.place)
	w.place = nil
	s.waiting--
	if w.flow.queue.Len() == 0 {
		s.turns.Remove(w.flow.turn)
		delete(s.flows, w.flow.caller)
	}
}

// release gives a seat back and hands it to the next call.
func (d *Dispatcher) release(level Level) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.states[level]
	s.inUse--
	if s.inUse >= s.kept {
		d.spare++
	} else if s.waiting > 0 {
		d.grant(level)
		return
	}
	for d.spare > 0 {
		next, ok := d.next()
		if !ok {
			return
		}
		d.grant(next)
	}
}

// next returns which level gets a seat that is to spare: the first that is below its guaranteed
// seats, and when none is, the one that borrows least for its size. The caller holds d.mu.
func (d *Dispatcher) next() (Level, bool) {
	best, found := Level(0), false
	for l := range d.states {
		s := &d.states[l]
		if s.waiting == 0 {
			continue
		}
		if s.inUse < s.nominal {
			return Level(l), true
		}
		if b := &d.states[best]; !found || s.inUse*b.nominal < b.inUse*s.nominal {
			best, found = Level(l), true
		}
	}
	return best, found
}

// grant gives a seat to the next call of a level that has one waiting. The caller holds d.mu.
func (d *Dispatcher) grant(level Level) {
	s := &d.states[level]
	f := s.turns.Front().Value.(*flow)
	w := f.queue.Front().Value.(*waiter)
	s.turns.MoveToBack(f.turn)
	d.remove(level, w)
	d.take(level)
	close(w.granted)
}

// refuse returns the error for a call that gets no seat. The caller holds d.mu.
func (d *Dispatcher) refuse(level Level, reason string, waited time.Duration) *RefusedError {
	s := &d.states[level]
	delay := min(retryFirst+retryFirst*time.Duration(s.waiting)/time.Duration(s.nominal), retryMost)
	delay = delay/2 + rand.N(delay)
	e := &RefusedError{Level: level, Reason: reason, Delay: delay, Waited: waited}
	switch reason {
	case ReasonCaller:
		e.text = fmt.Sprintf("the server works on %d calls of level %s, and too many of this caller wait already", s.inUse, level)
	case ReasonLevel:
		e.text = fmt.Sprintf("the server works on %d calls of level %s, and %d wait already", s.inUse, level, s.waiting)
	case ReasonWait:
		e.text = fmt.Sprintf("the call waited for %s: the server works on %d others of level %s, and %d wait",
			waited.Round(time.Millisecond), s.inUse, level, s.waiting)
	}
	return e
}

// Load is what a level does at a moment.
type Load struct {
	// InUse is how many seats the level has in use, and Waiting how many calls wait for one.
	InUse, Waiting int
	// Nominal is how many seats the level is guaranteed.
	Nominal int
}

// Load returns what a level does now.
func (d *Dispatcher) Load(level Level) Load {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.states[level]
	return Load{InUse: s.inUse, Waiting: s.waiting, Nominal: s.nominal}
}
