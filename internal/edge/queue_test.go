package edge

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestManyNodesBehindOneAddress has the nodes of a cluster connect at the same moment, from one
// address, to a server that has one slow processor: each handshake takes it 5 ms. Clients have 20
// seconds of patience, as those of Xebec, and come back after a pause with jitter.
func TestManyNodesBehindOneAddress(t *testing.T) {
	const nodes, cost, patience = 5000, 5 * time.Millisecond, 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		refused := map[string]int{}
		g := NewGuard(Limits{}, func(reason string) {
			mu.Lock()
			defer mu.Unlock()
			refused[reason]++
		})
		processor := make(chan struct{}, 1)
		began := time.Now()
		tries, wasted, most := 0, 0, 0
		var took []time.Duration
		connect := func(node string) bool {
			end := time.Now().Add(patience)
			v, err := g.Enter(t.Context(), one, nothing)
			if err != nil {
				return false
			}
			if time.Now().After(end) {
				v.Withdraw()
				return false
			}
			mu.Lock()
			most = max(most, g.Pending())
			mu.Unlock()
			processor <- struct{}{}
			time.Sleep(cost)
			<-processor
			if time.Now().After(end) {
				v.Leave()
				mu.Lock()
				wasted++
				mu.Unlock()
				return false
			}
			if err := v.Authenticated(node); err != nil {
				t.Error(err)
			}
			return true
		}
		var all sync.WaitGroup
		for i := range nodes {
			all.Go(func() {
				for pause := 100 * time.Millisecond; ; pause = min(pause*8/5, 1500*time.Millisecond) {
					ok := connect(strconv.Itoa(i))
					mu.Lock()
					tries++
					if ok {
						took = append(took, time.Since(began))
					}
					mu.Unlock()
					if ok {
						return
					}
					time.Sleep(pause*7/10 + rand.N(pause*6/10))
				}
			})
		}
		all.Wait()
		slices.Sort(took)
		t.Logf("all in after %v with %d tries, %d handshakes wasted, at most %d at once, refused %v", took[nodes-1], tries, wasted, most, refused)
		if most > DefaultLimits().PendingConnectionsPerSource {
			t.Errorf("%d authenticated at once", most)
		}
		// The processor needs 25 s for all of them, and is to spend it on hardly anything else.
		if last := took[nodes-1]; last > 30*time.Second || wasted > nodes/100 || tries > 4*nodes {
			t.Errorf("all in after %v with %d tries, of which %d were given up in the handshake", last, tries, wasted)
		}
		if connections, callers := g.Connections(), g.Callers(); connections != nodes || callers != nodes || g.Waiting() != 0 || g.Pending() != 0 {
			t.Errorf("%d connections of %d callers, %d pending, %d waiting", connections, callers, g.Pending(), g.Waiting())
		}
	})
}

// TestTurns has two sources wait: each is served in the order in which its connections came, and
// neither waits for the other.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(Limits{PendingConnections: 1}, nil)
		first := enter(t, g, one, nothing)
		var order []string
		var all sync.WaitGroup
		for _, c := range []struct {
			name string
			from netip.Addr
		}{{"a1", one}, {"a2", one}, {"a3", one}, {"b1", another}, {"b2", another}} {
			all.Go(func() {
				v := enter(t, g, c.from, nothing)
				order = append(order, c.name)
				time.Sleep(10 * time.Millisecond)
				if err := v.Authenticated(c.name); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		first.Leave()
		all.Wait()
		if want := []string{"a1", "b1", "a2", "b2", "a3"}; !slices.Equal(order, want) {
			t.Errorf("the order is %v, want %v", order, want)
		}
		if g.turns.Len() != 0 || g.waiting != 0 {
			t.Errorf("%d sources and %d connections wait", g.turns.Len(), g.waiting)
		}
	})
}

func TestWaitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{PendingConnectionsPerSource: 1, WaitingConnectionsPerSource: 2, WaitTimeout: 300 * time.Millisecond}
		g := NewGuard(limits, nil)
		enter(t, g, one, nothing)
		ended := make(chan error, 2)
		short, cancel := context.WithCancel(t.Context())
		for _, ctx := range []context.Context{short, t.Context()} {
			go func() {
				_, err := g.Enter(ctx, one, nothing)
				ended <- err
			}()
		}
		synctest.Wait()
		_, err := g.Enter(t.Context(), one, nothing)
		refusedFor(t, err, ClosedPending)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		refusedFor(t, <-ended, ClosedPending)
		if g.Waiting() != 0 {
			t.Errorf("%d wait", g.Waiting())
		}

		// Of all sources together as well.
		limits.WaitingConnections = 1
		g = NewGuard(limits, nil)
		for _, from := range []netip.Addr{one, another} {
			enter(t, g, from, nothing)
		}
		go func() { _, _ = g.Enter(t.Context(), one, nothing) }()
		synctest.Wait()
		_, err = g.Enter(t.Context(), another, nothing)
		refusedFor(t, err, ClosedPending)
	})
}

// TestWhoMakesRoom has connections authenticate for longer than others want to wait: the server may
// be slow for as long as it is, a client that has begun may be silent for half of the time for a
// handshake, and one that has sent nothing for a second.
func TestWhoMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(Limits{PendingConnections: 3, WaitTimeout: time.Minute, HandshakeTimeout: 20 * time.Second}, nil)
		began := time.Now()
		cut := map[string]time.Duration{}
		visit := func(name string) *Connection { return enter(t, g, one, func() { cut[name] = time.Since(began) }) }
		slowServer, slowClient, silent := visit("slow server"), visit("slow client"), visit("silent")
		for _, v := range []*Connection{slowServer, slowClient} {
			v.Reading()
			v.Read()
		}
		slowClient.Reading()
		silent.Reading()
		for _, want := range []struct {
			name  string
			after time.Duration
		}{{"silent", time.Second}, {"slow client", 10 * time.Second}, {"slow server", 20 * time.Second}} {
			next := enter(t, g, another, nothing)
			next.Reading()
			next.Read()
			synctest.Wait()
			if at, ok := cut[want.name]; !ok || at < want.after || at > want.after+lookInterval {
				t.Errorf("cut %v, want %s after %v", cut, want.name, want.after)
			}
		}
	})
}

// TestStrangersAtTheirRate has connections of a source end that have not authenticated.
func TestStrangersAtTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(Limits{ConnectionsPerSecond: 0.1, ConnectionsBurst: 4, HandshakeTimeout: 5 * time.Second}, nil)
		// Those that gave up before their turn, and those that the server took too long for, are not held
		// against the source.
		for range 20 {
			enter(t, g, one, nothing).Withdraw()
		}
		for range 20 {
			enter(t, g, one, nothing)
		}
		time.Sleep(10 * time.Second)
		// There may be more at once than the burst: they count when they end.
		var all []*Connection
		for range 6 {
			all = append(all, enter(t, g, one, nothing))
		}
		for _, v := range all {
			v.Leave()
		}
		_, err := g.Enter(t.Context(), one, nothing)
		refusedFor(t, err, ClosedRate)
		// Two were owed.
		time.Sleep(25 * time.Second)
		_, err = g.Enter(t.Context(), one, nothing)
		refusedFor(t, err, ClosedRate)
		time.Sleep(10 * time.Second)
		enter(t, g, one, nothing).Leave()
	})
}
