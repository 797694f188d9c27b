package edge

import (
	"container/list"
	"fmt"
	"sync/atomic"
	"time"
)

// Connection is one connection. Its methods may be called by several goroutines; a nil connection
// may do everything, for servers without a guard.
type Connection struct {
	guard   *Guard
	source  *source
	entered time.Time
	cut     func()
	timer   *time.Timer

	caller   atomic.Pointer[string] // who authenticated on it
	failures atomic.Int32
	// silent is since when the server waits for bytes of the client, from the guard's beginning and
	// not 0; 0 while it does not.
	silent atomic.Int64
	// begun reports whether the client has sent anything.
	begun atomic.Bool

	// ofAll and ofSource are its places among those that have not authenticated, nil once it has or
	// has left; the guard's mu protects them, and left.
	ofAll, ofSource *list.Element
	left            bool
}

// settle takes the connection out of those that have not authenticated, and reports whether it was
// among them. The caller holds the guard's mu.
func (c *Connection) settle() bool {
	if c.ofAll == nil {
		return false
	}
	c.guard.pending.Remove(c.ofAll)
	c.source.pending.Remove(c.ofSource)
	c.ofAll, c.ofSource = nil, nil
	c.timer.Stop()
	return true
}

// Reading notes that the server waits for bytes of the client, and Read that they have come. Both
// cost next to nothing once the caller has authenticated.
func (c *Connection) Reading() {
	if c != nil && c.caller.Load() == nil {
		c.silent.Store(max(1, int64(time.Since(c.guard.began))))
	}
}

// Read is the end of Reading.
func (c *Connection) Read() {
	if c != nil && c.caller.Load() == nil {
		c.silent.Store(0)
		c.begun.Store(true)
	}
}

// silence returns how long the server has been waiting for bytes of the client.
func (c *Connection) silence(now time.Time) time.Duration {
	since := c.silent.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(c.guard.began) - time.Duration(since)
}

// Authenticated notes that the connection's caller has proved to be caller, and returns an error
// when that one has too many connections: the caller refuses the call then, and the connection
// counts as not authenticated. Of several callers on one connection the first counts. It is cheap
// when repeated.
func (c *Connection) Authenticated(caller string) error {
	if c == nil || c.caller.Load() != nil {
		return nil
	}
	g := c.guard
	g.mu.Lock()
	if c.left || c.caller.Load() != nil {
		g.mu.Unlock()
		return nil
	}
	if n := g.callers[caller]; n >= g.limits.ConnectionsPerCaller {
		g.mu.Unlock()
		return fmt.Errorf("%q has %d connections open already", caller, n)
	}
	g.callers[caller]++
	g.connections++
	c.caller.Store(&caller)
	evicted := c.settleAndAdmit(false)
	g.mu.Unlock()
	cutAll(evicted)
	return nil
}

// settleAndAdmit takes the connection out of those that have not authenticated and admits those
// that wait for its place. failed tells that it counts against the rate of its source: it ended
// without having authenticated. One that the guard cuts, for its time or to make room, does not:
// how often that happens is bounded by the places, and the server may have been too slow. What it
// returns is for cutAll. The caller holds the guard's mu.
func (c *Connection) settleAndAdmit(failed bool) []*Connection {
	if !c.settle() {
		return nil
	}
	now := time.Now()
	if failed {
		// There may be more of them at once than tokens: the source owes the rest.
		c.source.connections.ReserveN(now, 1)
	}
	return c.guard.admit(now)
}

// Withdraw counts out a connection whose client gave up before its turn came. It does not count
// against the rate of its source. The connection must not be used any more.
func (c *Connection) Withdraw() { c.leave(false) }

// MayTry reports whether an unknown credential of this source is worth a look: not while too many
// have failed.
func (c *Connection) MayTry() bool {
	return c == nil || c.source.failures.Tokens() >= 1
}

// Failed notes that a call failed to authenticate. After too many of the connection, or of its
// source, the connection is closed, a moment later so that the caller can read why.
func (c *Connection) Failed() {
	if c == nil {
		return
	}
	if c.source.failures.Allow() && c.failures.Add(1) != failuresPerConnection {
		return
	}
	time.AfterFunc(closeDelay, func() { c.cutFor(ClosedFailures) })
}

// closeDelay is what a caller gets to read why its connection is closed.
const closeDelay = 100 * time.Millisecond

// ExpireAt closes the connection at a time, when the certificate of its caller expires, and a
// moment later, so that calls end with a proper status first. The zero time does nothing. It may be
// called once, and stop when the connection has left.
func (c *Connection) ExpireAt(at time.Time) {
	if c == nil || at.IsZero() {
		return
	}
	g := c.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.left {
		return
	}
	c.timer.Stop()
	c.timer = time.AfterFunc(time.Until(at)+time.Second, func() { c.cutFor(ClosedExpired) })
}

// Leave counts the connection out, when it is closed. It may be called again.
func (c *Connection) Leave() { c.leave(true) }

func (c *Connection) leave(failed bool) {
	if c == nil {
		return
	}
	g := c.guard
	g.mu.Lock()
	if c.left {
		g.mu.Unlock()
		return
	}
	c.left = true
	evicted := c.settleAndAdmit(failed)
	c.timer.Stop()
	if caller := c.caller.Load(); caller != nil {
		g.connections--
		if g.callers[*caller]--; g.callers[*caller] <= 0 {
			delete(g.callers, *caller)
		}
	}
	g.mu.Unlock()
	cutAll(evicted)
}

// timeout closes the connection when it has not authenticated.
func (c *Connection) timeout() {
	c.guard.mu.Lock()
	pending := c.ofAll != nil
	evicted := c.settleAndAdmit(false)
	c.guard.mu.Unlock()
	cutAll(evicted)
	if pending {
		c.cutFor(ClosedTimeout)
	}
}

func (c *Connection) cutFor(reason string) {
	c.guard.mu.Lock()
	left := c.left
	c.guard.mu.Unlock()
	if !left {
		c.guard.closed(reason)
		c.cut()
	}
}
