package edge

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Gate lets a bounded number of each caller's requests be received at once, so that the memory for what has not arrived
// whole is bounded. What is refused or waits holds no more than the flow-control window of its stream. It is safe for
// concurrent use.
type Gate struct {
	perCaller int64

	mu      sync.Mutex
	callers map[string]*turns
}

// turns are those of one caller.
type turns struct {
	free  *semaphore.Weighted
	users int // that have a turn or wait for one
}

// NewGate returns a gate for so many requests of one caller.
func NewGate(perCaller int) *Gate {
	return &Gate{perCaller: int64(perCaller), callers: make(map[string]*turns)}
}

// Enter waits for the caller's turn and returns what ends it, or ctx's error.
func (g *Gate) Enter(ctx context.Context, caller string) (leave func(), err error) {
	g.mu.Lock()
	t := g.join(caller)
	g.mu.Unlock()
	if err := t.free.Acquire(ctx, 1); err != nil {
		g.forget(caller, t)
		return nil, err
	}
	return g.leaver(caller, t), nil
}

// TryEnter is Enter for a caller that does not wait; false when it would have to.
func (g *Gate) TryEnter(caller string) (leave func(), ok bool) {
	g.mu.Lock()
	t := g.join(caller)
	g.mu.Unlock()
	if !t.free.TryAcquire(1) {
		g.forget(caller, t)
		return nil, false
	}
	return g.leaver(caller, t), true
}

// join returns the turns of a caller, with one user more. The caller holds g.mu.
func (g *Gate) join(caller string) *turns {
	t := g.callers[caller]
	if t == nil {
		t = &turns{free: semaphore.NewWeighted(g.perCaller)}
		g.callers[caller] = t
	}
	t.users++
	return t
}

// leaver returns what ends a turn.
func (g *Gate) leaver(caller string, t *turns) func() {
	return func() {
		t.free.Release(1)
		g.forget(caller, t)
	}
}

func (g *Gate) forget(caller string, t *turns) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(g.callers, caller)
	}
}
