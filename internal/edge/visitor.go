package edge

import (
	"container/list"
	"fmt"
	"sync/atomic"
	"time"
)

// Visitor is one connection. Its methods may be called by several goroutines; a nil visitor may do everything, for servers
// without a guard.
type Visitor struct {
	guard   *Guard
	source  *source
	entered time.Time
	cut     func()
	timer   *time.Timer

	caller   atomic.Pointer[string] // who authenticated on it
	failures atomic.Int32
	// silent is since when the server waits for bytes of the client, from the guard's beginning and not 0; 0 while it does not.
	silent atomic.Int64
	// begun tells whether the client has sent anything.
	begun atomic.Bool

	// ofAll and ofSource are its places among those that have not authenticated, nil once it has or has left; the guard's
	// mu protects them, and left.
	ofAll, ofSource *list.Element
	left            bool
}

// settle takes the visitor out of those that have not authenticated, and reports whether it was among them. The caller holds
// the guard's mu.
func (v *Visitor) settle() bool {
	if v.ofAll == nil {
		return false
	}
	v.guard.pending.Remove(v.ofAll)
	v.source.pending.Remove(v.ofSource)
	v.ofAll, v.ofSource = nil, nil
	v.timer.Stop()
	return true
}

// Reading notes that the server waits for bytes of the client, and Read that they have come. Both cost next to nothing once
// the caller has authenticated.
func (v *Visitor) Reading() {
	if v != nil && v.caller.Load() == nil {
		v.silent.Store(max(1, int64(time.Since(v.guard.began))))
	}
}

// Read is the end of Reading.
func (v *Visitor) Read() {
	if v != nil && v.caller.Load() == nil {
		v.silent.Store(0)
		v.begun.Store(true)
	}
}

// silence returns how long the server has been waiting for bytes of the client.
func (v *Visitor) silence(now time.Time) time.Duration {
	since := v.silent.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(v.guard.began) - time.Duration(since)
}

// Authenticated notes that the connection's caller has proved to be caller, and returns an error when that one has too
// many connections: the call is to be refused then, and the connection counts as not authenticated. Of several callers on
// one connection the first counts. It is cheap when repeated.
func (v *Visitor) Authenticated(caller string) error {
	if v == nil || v.caller.Load() != nil {
		return nil
	}
	g := v.guard
	g.mu.Lock()
	if v.left || v.caller.Load() != nil {
		g.mu.Unlock()
		return nil
	}
	if n := g.callers[caller]; n >= g.limits.ConnectionsPerCaller {
		g.mu.Unlock()
		return fmt.Errorf("%q has %d connections open already", caller, n)
	}
	g.callers[caller]++
	g.connections++
	v.caller.Store(&caller)
	evicted := v.settleAndAdmit(false)
	g.mu.Unlock()
	cutAll(evicted)
	return nil
}

// settleAndAdmit takes the visitor out of those that have not authenticated and admits those that wait for its place. failed
// tells that it counts against the rate of its source: it ended without having authenticated. One that the guard cuts, for
// its time or to make room, does not: how often that happens is bounded by the places, and the server may have been too slow.
// What it returns is for cutAll. The caller holds the guard's mu.
func (v *Visitor) settleAndAdmit(failed bool) []*Visitor {
	if !v.settle() {
		return nil
	}
	now := time.Now()
	if failed {
		// There may be more of them at once than tokens: the source owes the rest.
		v.source.connections.ReserveN(now, 1)
	}
	return v.guard.admit(now)
}

// Withdraw counts out a connection whose client gave up before its turn came. It does not count against the rate of its
// source. The connection must not be used any more.
func (v *Visitor) Withdraw() { v.leave(false) }

// MayTry reports whether an unknown credential of this source is worth a look: not while too many have failed.
func (v *Visitor) MayTry() bool {
	return v == nil || v.source.failures.Tokens() >= 1
}

// Failed notes that a call failed to authenticate. After too many of the connection, or of its source, the connection is
// closed, a moment later so that the caller can read why.
func (v *Visitor) Failed() {
	if v == nil {
		return
	}
	if v.source.failures.Allow() && v.failures.Add(1) != failuresPerConnection {
		return
	}
	time.AfterFunc(closeDelay, func() { v.cutFor(ReasonFailures) })
}

// closeDelay is what a caller gets to read why its connection is closed.
const closeDelay = 100 * time.Millisecond

// ExpireAt closes the connection at a time, when the certificate of its caller expires, and a moment later, so that calls
// end with a proper status first. The zero time does nothing. It may be called once, and stop when the visitor has left.
func (v *Visitor) ExpireAt(at time.Time) {
	if v == nil || at.IsZero() {
		return
	}
	g := v.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.left {
		return
	}
	v.timer.Stop()
	v.timer = time.AfterFunc(time.Until(at)+time.Second, func() { v.cutFor(ReasonExpired) })
}

// Leave counts the connection out, when it is closed. It may be called again.
func (v *Visitor) Leave() { v.leave(true) }

func (v *Visitor) leave(failed bool) {
	if v == nil {
		return
	}
	g := v.guard
	g.mu.Lock()
	if v.left {
		g.mu.Unlock()
		return
	}
	v.left = true
	evicted := v.settleAndAdmit(failed)
	v.timer.Stop()
	if caller := v.caller.Load(); caller != nil {
		g.connections--
		if g.callers[*caller]--; g.callers[*caller] <= 0 {
			delete(g.callers, *caller)
		}
	}
	g.mu.Unlock()
	cutAll(evicted)
}

// timeout closes the connection when it has not authenticated.
func (v *Visitor) timeout() {
	v.guard.mu.Lock()
	pending := v.ofAll != nil
	evicted := v.settleAndAdmit(false)
	v.guard.mu.Unlock()
	cutAll(evicted)
	if pending {
		v.cutFor(ReasonTimeout)
	}
}

func (v *Visitor) cutFor(reason string) {
	v.guard.mu.Lock()
	left := v.left
	v.guard.mu.Unlock()
	if !left {
		v.guard.closed(reason)
		v.cut()
	}
}
