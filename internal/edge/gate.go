package edge

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// gate bounds the requests of each caller that are received at once, and with them the memory for
// requests that have not arrived completely. A request that is refused or waits holds no more than
// the flow-control window of its stream. It is safe for concurrent use.
type gate struct {
	perCaller int64

	mu      sync.Mutex
	callers map[string]*turns
}

// turns are those of one caller.
type turns struct {
	free  *semaphore.Weighted
	users int // requests that have a turn or wait for one
}

// newGate returns a gate for a number of requests of one caller.
func newGate(perCaller int) *gate {
	return &gate{perCaller: int64(perCaller), callers: make(map[string]*turns)}
}

// enter waits for the caller's turn and returns what ends it, or ctx's error.
func (g *gate) enter(ctx context.Context, caller string) (leave func(), err error) {
	t := g.join(caller)
	if err := t.free.Acquire(ctx, 1); err != nil {
		g.forget(caller, t)
		return nil, err
	}
	return g.leaver(caller, t), nil
}

// tryEnter is enter without waiting; false when it would have to wait.
func (g *gate) tryEnter(caller string) (leave func(), ok bool) {
	t := g.join(caller)
	if !t.free.TryAcquire(1) {
		g.forget(caller, t)
		return nil, false
	}
	return g.leaver(caller, t), true
}

// join returns the turns of a caller, with one user more.
func (g *gate) join(caller string) *turns {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.callers[caller]
	if t == nil {
		t = &turns{free: semaphore.NewWeighted(g.perCaller)}
		g.callers[caller] = t
	}
	t.users++
	return t
}

// leaver returns what ends a turn.
func (g *gate) leaver(caller string, t *turns) func() {
	return func() {
		t.free.Release(1)
		g.forget(caller, t)
	}
}

func (g *gate) forget(caller string, t *turns) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(g.callers, caller)
	}
}
