package edge

import (
	"container/list"
	"context"
	"fmt"
	"net/netip"
	"time"
)

// A connection that comes while as many authenticate as may waits for its turn. Each source has a
// queue, first come, first served, and the sources take turns. Refusing them instead would make
// thousands of nodes, after a restart of the server, return until each happens to find a free
// place, and letting all of them authenticate at once would make each take longer than its client
// waits: no connection would ever be established.

// waiter is a connection that waits. The guard's mu protects it.
type waiter struct {
	source *source
	cut    func()
	// place is its place in the source's queue, nil once it has its turn or was refused.
	place *list.Element
	// decided is closed then, with one of connection and refused set.
	decided    chan struct{}
	connection *Connection
	refused    *RefusedError
}

// Enter counts a connection in, before its handshake, once it is its turn, and returns a
// *RefusedError when the connection is not to be taken, or the error of ctx when that ends before.
// cut closes it: Enter arranges that it is called when the connection does not authenticate in
// time, has to make room or fails too often. Every connection must leave.
func (g *Guard) Enter(ctx context.Context, addr netip.Addr, cut func()) (*Connection, error) {
	g.mu.Lock()
	now := time.Now()
	s := g.source(prefixOf(addr))
	// A source that has used its rate up does not even wait.
	if s.connections.TokensAt(now) < 1 {
		g.mu.Unlock()
		return nil, g.refuse(g.tooOften(s))
	}
	if s.waiting.Len() >= g.limits.WaitingConnectionsPerSource || g.waiting >= g.limits.WaitingConnections {
		refused := &RefusedError{ClosedPending,
			fmt.Sprintf("%d connections wait to authenticate, %d of them of %s", g.waiting, s.waiting.Len(), s.prefix)}
		g.mu.Unlock()
		return nil, g.refuse(refused)
	}
	w := &waiter{source: s, cut: cut, decided: make(chan struct{})}
	w.place = s.waiting.PushBack(w)
	g.waiting++
	if s.turn == nil {
		s.turn = g.turns.PushBack(s)
	}
	evicted := g.admit(now)
	g.mu.Unlock()
	cutAll(evicted)
	return g.wait(ctx, w)
}

// wait returns what becomes of a connection that waits.
func (g *Guard) wait(ctx context.Context, w *waiter) (*Connection, error) {
	select {
	case <-w.decided:
	default:
		timer := time.NewTimer(g.limits.WaitTimeout)
		defer timer.Stop()
		select {
		case <-w.decided:
		case <-ctx.Done():
			if g.withdraw(w) {
				return nil, ctx.Err()
			}
		case <-timer.C:
			if g.withdraw(w) {
				return nil, g.refuse(&RefusedError{ClosedPending, fmt.Sprintf("it waited %s for its turn to authenticate", g.limits.WaitTimeout)})
			}
		}
	}
	if w.refused != nil {
		return nil, g.refuse(w.refused)
	}
	return w.connection, nil
}

// refuse counts a refusal.
func (g *Guard) refuse(err *RefusedError) error {
	g.closed(err.Reason)
	return err
}

func (g *Guard) tooOften(s *source) *RefusedError {
	return &RefusedError{ClosedRate,
		fmt.Sprintf("%s makes more than %g connections per second that do not authenticate", s.prefix, g.limits.ConnectionsPerSecond)}
}

// withdraw takes a connection out of its queue, and reports whether it was there still.
func (g *Guard) withdraw(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.place == nil {
		return false
	}
	g.dequeue(w)
	return true
}

// dequeue takes a connection out of its queue, and the source out of the turns when no other of it
// waits. The caller holds g.mu.
func (g *Guard) dequeue(w *waiter) {
	s := w.source
	s.waiting.Remove(w.place)
	w.place = nil
	g.waiting--
	if s.waiting.Len() == 0 {
		g.turns.Remove(s.turn)
		s.turn = nil
	}
}

// lookInterval is how often those that wait check whether a connection must make room for them.
const lookInterval = 100 * time.Millisecond

// admit gives those that wait their turns for as long as there is room, and returns the connections
// that had to make it, for cutAll. The caller holds g.mu.
func (g *Guard) admit(now time.Time) (evicted []*Connection) {
	for turn := g.turns.Front(); turn != nil; {
		s, following := turn.Value.(*source), turn.Next()
		full, ofAll := g.fullFor(s)
		var yielding *Connection
		if full != nil {
			if yielding = g.yielding(full, now); yielding == nil && ofAll {
				break // no other source finds room either
			}
			if yielding == nil {
				turn = following
				continue
			}
		}
		w := s.waiting.Front().Value.(*waiter)
		g.turns.MoveToBack(turn)
		g.dequeue(w)
		if s.connections.TokensAt(now) < 1 {
			w.refused = g.tooOften(s)
		} else {
			if yielding != nil {
				yielding.settle()
				evicted = append(evicted, yielding)
			}
			w.connection = g.connection(w, now)
		}
		close(w.decided)
		if following == nil {
			following = g.turns.Front()
		}
		turn = following
	}
	if g.waiting > 0 {
		g.retry.Reset(lookInterval)
	}
	return evicted
}

// fullFor returns the list of connections one of which has to make room before a connection of a
// source can authenticate, nil when there is room, and whether it is that of all sources. The
// caller holds g.mu.
func (g *Guard) fullFor(s *source) (full *list.List, ofAll bool) {
	switch {
	case s.pending.Len() >= g.limits.PendingConnectionsPerSource:
		return &s.pending, false
	case g.pending.Len() >= g.limits.PendingConnections:
		return &g.pending, true
	}
	return nil, false
}

// yielding returns the oldest connection of a list that has to make room, nil when none has to. The
// caller holds g.mu.
func (g *Guard) yielding(connections *list.List, now time.Time) *Connection {
	for element := connections.Front(); element != nil; element = element.Next() {
		c := element.Value.(*Connection)
		if now.Sub(c.entered) < yieldAge {
			return nil
		}
		most := yieldAge
		if c.begun.Load() {
			most = g.limits.HandshakeTimeout / 2
		}
		if c.silence(now) >= most {
			return c
		}
	}
	return nil
}

// connection makes a connection of a connection whose turn it is. The caller holds g.mu.
func (g *Guard) connection(w *waiter, now time.Time) *Connection {
	c := &Connection{guard: g, source: w.source, entered: now, cut: w.cut}
	c.ofAll, c.ofSource = g.pending.PushBack(c), w.source.pending.PushBack(c)
	c.timer = time.AfterFunc(g.limits.HandshakeTimeout, c.timeout)
	return c
}

// admitLater admits when time has made room.
func (g *Guard) admitLater() {
	g.mu.Lock()
	evicted := g.admit(time.Now())
	g.mu.Unlock()
	cutAll(evicted)
}

// cutAll closes the connections that had to make room. The caller does not hold the guard's mu.
func cutAll(evicted []*Connection) {
	for _, c := range evicted {
		c.cutFor(ClosedPending)
	}
}
