package edge

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	one     = netip.MustParseAddr("192.0.2.1")
	another = netip.MustParseAddr("192.0.2.2")
)

func nothing() {}

// enter takes a connection that must be taken.
func enter(t *testing.T, g *Guard, addr netip.Addr, cut func()) *Connection {
	t.Helper()
	v, err := g.Enter(t.Context(), addr, cut)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func refusedFor(t *testing.T, err error, reason string) {
	t.Helper()
	if refused := (*RefusedError)(nil); !errors.As(err, &refused) || refused.Reason != reason {
		t.Errorf("got %v, want a refusal for %s", err, reason)
	}
}

func TestPendingConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(Limits{PendingConnections: 4, PendingConnectionsPerSource: 2, HandshakeTimeout: 10 * time.Second}, nil)
		cut := make(map[string]bool)
		first := enter(t, g, one, func() { cut["first"] = true })
		second := enter(t, g, one, func() { cut["second"] = true })
		// The first is silent, and the server works on the second.
		first.Reading()
		second.Reading()
		second.Read()
		began := time.Now()
		waits := make(chan *Connection)
		go func() { waits <- enter(t, g, one, nothing) }()
		synctest.Wait()
		if cut["first"] || g.Pending() != 2 || g.Waiting() != 1 {
			t.Errorf("cut %v, %d pending, %d waiting: want that the third waits", cut, g.Pending(), g.Waiting())
		}

		// A source that is at its limit takes nothing from others.
		third := enter(t, g, another, nothing)

		// After a second of silence the first makes room.
		fourth := <-waits
		synctest.Wait() // for the goroutine that cuts the first
		if waited := time.Since(began); waited < time.Second || waited > time.Second+lookInterval || g.Waiting() != 0 {
			t.Errorf("waited %v, %d are waiting", waited, g.Waiting())
		}
		if !cut["first"] || cut["second"] {
			t.Errorf("cut %v, want the oldest alone", cut)
		}
		first.Leave()

		// Those that authenticate do not count, and stay.
		for _, v := range []*Connection{second, third, fourth} {
			if err := v.Authenticated("ann"); err != nil {
				t.Error(err)
			}
		}
		if n := g.Pending(); n != 0 {
			t.Errorf("%d pending", n)
		}
		late := enter(t, g, one, func() { cut["late"] = true })
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if !cut["late"] || cut["second"] || g.Pending() != 0 {
			t.Errorf("cut %v, %d pending: want that cut which did not authenticate in time", cut, g.Pending())
		}
		for _, v := range []*Connection{late, second, third, fourth} {
			v.Leave()
			v.Leave()
		}
		if len(g.callers) != 0 {
			t.Errorf("callers %v are left", g.callers)
		}
	})
}

func TestConnectionRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(Limits{ConnectionsPerSecond: 1, ConnectionsBurst: 5}, nil)
		// Many nodes behind one address: they authenticate, and are not held off.
		for range 100 {
			v := enter(t, g, one, nothing)
			if err := v.Authenticated("node"); err != nil {
				t.Fatal(err)
			}
			v.Leave()
		}
		for range 5 {
			enter(t, g, one, nothing).Leave()
		}
		_, err := g.Enter(t.Context(), one, nothing)
		refusedFor(t, err, ClosedRate)
		enter(t, g, another, nothing).Leave()
		time.Sleep(1500 * time.Millisecond)
		enter(t, g, one, nothing).Leave()
	})
}

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(Limits{FailuresPerSecond: 1, FailuresBurst: 50}, nil)
		cut := 0
		v := enter(t, g, one, func() { cut++ })
		for range failuresPerConnection {
			if !v.MayTry() {
				t.Fatal("it may not try")
			}
			v.Failed()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if cut != 1 {
			t.Errorf("cut %d times, want once after %d failures", cut, failuresPerConnection)
		}
		v.Leave()
		// The source's failures are those of all of its connections.
		v = enter(t, g, one, nothing)
		for v.MayTry() {
			v.Failed()
		}
		if next := enter(t, g, one, nothing); next.MayTry() {
			t.Error("another connection of the source may try")
		} else {
			next.Leave()
		}
		if other := enter(t, g, another, nothing); !other.MayTry() {
			t.Error("another source may not try")
		} else {
			other.Leave()
		}
		v.Leave()
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(Limits{}, nil)
		var cut atomic.Bool
		v := enter(t, g, one, func() { cut.Store(true) })
		if err := v.Authenticated("ann"); err != nil {
			t.Fatal(err)
		}
		v.ExpireAt(time.Now().Add(time.Hour))
		time.Sleep(time.Hour)
		synctest.Wait()
		if cut.Load() {
			t.Error("cut at once: its calls get no answer")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !cut.Load() {
			t.Error("not cut")
		}
		v.Leave()
	})
}

// TestSourcesByPrefix takes all addresses of one IPv6 network for one source.
func TestSourcesByPrefix(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"192.0.2.7", "192.0.2.7/32"}, {"::ffff:192.0.2.7", "192.0.2.7/32"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"}, {"fe80::1%eth0", "fe80::/64"},
	} {
		if got := prefixOf(netip.MustParseAddr(tt.addr)).String(); got != tt.want {
			t.Errorf("%s is of %s, want %s", tt.addr, got, tt.want)
		}
	}
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		leave, err := g.enter(t.Context(), "ann")
		if err != nil {
			t.Fatal(err)
		}
		other, err := g.enter(t.Context(), "bob")
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.enter(short, "ann"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second turn: %v", err)
		}
		taken := make(chan func())
		go func() {
			leave, _ := g.enter(t.Context(), "ann")
			taken <- leave
		}()
		synctest.Wait()
		leave()
		(<-taken)()
		other()
		if len(g.callers) != 0 {
			t.Errorf("%d callers are left", len(g.callers))
		}
	})
}
