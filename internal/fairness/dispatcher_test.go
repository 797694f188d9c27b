package fairness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// crowd makes calls and notes who got a seat, in order. Its fields are read while the calls are at
// rest.
type crowd struct {
	t *testing.T
	d *Dispatcher

	mu     sync.Mutex
	seated []string
	seats  []*Seat
	errs   []error
}

// enter makes a call of its own goroutine that keeps its seat.
func (c *crowd) enter(ctx context.Context, level Level, caller string) {
	go func() {
		seat, err := c.d.Enter(ctx, level, caller)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.errs = append(c.errs, err)
			return
		}
		c.seated, c.seats = append(c.seated, caller), append(c.seats, &seat)
	}()
	synctest.Wait()
}

// many makes calls of one caller.
func (c *crowd) many(n int, level Level, caller string) {
	for range n {
		c.enter(c.t.Context(), level, caller)
	}
}

// leave ends the oldest call of a level.
func (c *crowd) leave(level Level) {
	c.t.Helper()
	for _, seat := range c.seats {
		if seat.Held() && seat.level == level {
			seat.Release()
			synctest.Wait()
			return
		}
	}
	c.t.Fatalf("no call of level %s is under way", level)
}

func (c *crowd) check(level Level, inUse, waiting int) {
	c.t.Helper()
	if l := c.d.Load(level); l.InUse != inUse || l.Waiting != waiting {
		c.t.Errorf("level %s has %d seats in use and %d calls waiting, want %d and %d", level, l.InUse, l.Waiting, inUse, waiting)
	}
}

// newCrowd makes a dispatcher in a bubble of synctest, and ends all calls after the test.
func newCrowd(t *testing.T, cfg Config) *crowd {
	c := &crowd{t: t, d: New(cfg)}
	t.Cleanup(func() {
		for left := -1; left != 0; {
			synctest.Wait()
			left = 0
			for _, seat := range c.seats {
				if seat.Held() {
					left++
					seat.Release()
				}
			}
		}
		for _, level := range All() {
			c.check(level, 0, 0)
			if n := len(c.d.states[level].flows); n != 0 {
				t.Errorf("%d queues of level %s are left", n, level)
			}
		}
		if want := New(cfg).spare; c.d.spare != want {
			t.Errorf("%d seats are to spare at the end, %d at the start", c.d.spare, want)
		}
	})
	return c
}

func TestNominalSeats(t *testing.T) {
	for _, seats := range []int{5, 6, 7, 16, 100, 256, 10000} {
		sum := 0
		for l, n := range nominal(seats) {
			sum += n
			if n < 1 || seats >= 100 && (n < seats*levels[l].share/100-1 || n > seats*levels[l].share/100+2) {
				t.Errorf("level %s has %d of %d seats, want %d%%", Level(l), n, seats, levels[l].share)
			}
		}
		if sum != seats {
			t.Errorf("%d of %d seats are given out", sum, seats)
		}
	}
}

// TestBorrowing lets one level take what the others do not use, but for what they keep.
func TestBorrowing(t *testing.T) {
	// 10, 10, 40, 25 and 15 seats, give or take one.
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 100})
		n := nominal(100)
		kept := 0
		for l := range n {
			if Level(l) != Nodes {
				kept += (n[l] + 1) / 2
			}
		}
		c.many(200, Nodes, "node")
		c.check(Nodes, 100-kept, 100+kept)
		// The others' first calls do not wait.
		for _, level := range []Level{System, Leases, Controllers, People} {
			c.many((n[level]+1)/2, level, "caller")
			c.check(level, (n[level]+1)/2, 0)
		}
		// The next ones wait for a call of the borrower to end, and get the seat before it.
		c.many(n[People], People, "ann")
		c.check(People, (n[People]+1)/2, n[People])
		for i := range n[People] / 2 {
			c.leave(Nodes)
			c.check(People, (n[People]+1)/2+i+1, n[People]-i-1)
		}
		// Above its share a level waits for its turn to borrow.
		c.check(People, n[People], n[People]-n[People]/2)
		c.leave(Nodes)
		c.check(People, n[People]+1, n[People]-n[People]/2-1) // it borrows nothing yet, nodes much
	})
}

// TestGuaranteedShares fills the server with calls of all levels: each gets its share, in whatever
// order they came.
func TestGuaranteedShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 50})
		for i := len(All()) - 1; i >= 0; i-- {
			c.many(100, All()[i], "caller")
		}
		// Each call that ends makes room; ended ones are of levels that have more than their share.
		n := nominal(50)
		for range 200 {
			for _, level := range All() {
				if c.d.Load(level).InUse > n[level] {
					c.leave(level)
				}
			}
		}
		for _, level := range All() {
			if l := c.d.Load(level); l.InUse != n[level] {
				c.t.Errorf("level %s has %d seats, want %d", level, l.InUse, n[level])
			}
		}
	})
}

// TestFreeSeatsGoToTheFirstLevelBelowItsShare lets several levels wait.
func TestFreeSeatsGoToTheFirstLevelBelowItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 100})
		c.many(100, Controllers, "workloads")
		n := nominal(100)
		c.many(n[People], People, "ann")
		c.many(n[System], System, "scheduler")
		c.check(System, (n[System]+1)/2, n[System]/2)
		for range n[System] / 2 {
			c.leave(Controllers)
		}
		c.check(System, n[System], 0)
		c.check(People, (n[People]+1)/2, n[People]/2)
	})
}

// TestRoundRobin lets a modest caller come after a greedy one.
func TestRoundRobin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 5})
		c.many(1, Nodes, "first") // One seat for each level, none to spare.
		c.many(20, Nodes, "greedy")
		c.many(2, Nodes, "modest")
		c.many(1, Nodes, "late")
		for range 6 {
			c.leave(Nodes)
		}
		want := "first greedy modest late greedy modest greedy"
		if got := strings.Join(c.seated, " "); got != want {
			t.Errorf("seats were given to %s, want %s", got, want)
		}
		c.check(Nodes, 1, 17)
	})
}

func TestQueuesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 5, Queues: Queues{PerCaller: 3, PerLevel: 6}})
		refused := func(reason string) {
			t.Helper()
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.errs) != 1 {
				t.Fatalf("%d calls were refused, want one: %v", len(c.errs), c.errs)
			}
			if e := (*RefusedError)(nil); !errors.As(c.errs[0], &e) || e.Reason != reason || e.Level != People {
				t.Errorf("got %v, want a refusal for %s", c.errs[0], reason)
			}
			c.errs = nil
		}
		c.many(1, People, "first")
		c.many(3, People, "greedy")
		c.check(People, 1, 3)
		c.many(1, People, "greedy")
		refused(ReasonCaller)
		// Three places are left: the second greedy caller leaves one of them to others.
		c.many(2, People, "bob")
		c.many(1, People, "bob")
		refused(ReasonCaller)
		c.many(1, People, "ann")
		c.check(People, 1, 6)
		c.many(1, People, "cid")
		refused(ReasonLevel)
		// Other levels are not affected, nor is what comes when there is room.
		c.many(1, Nodes, "node")
		c.check(Nodes, 1, 0)
		c.leave(People)
		c.many(1, People, "cid")
		c.check(People, 1, 6)
	})
}

// TestAbandonedCalls ends the contexts of calls that wait: they leave at once, and the seats go to
// others.
func TestAbandonedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 5})
		c.many(1, Nodes, "first")
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.enter(short, Nodes, "hasty")
		c.enter(short, Nodes, "hasty")
		c.many(1, Nodes, "patient")
		c.check(Nodes, 1, 3)
		time.Sleep(time.Second)
		synctest.Wait()
		c.check(Nodes, 1, 1)
		if len(c.errs) != 2 || !errors.Is(c.errs[0], context.DeadlineExceeded) {
			t.Errorf("the calls ended with %v", c.errs)
		}
		c.leave(Nodes)
		if got := strings.Join(c.seated, " "); got != "first patient" {
			t.Errorf("seats were given to %s", got)
		}
		// One that is over already does not even wait.
		c.enter(short, Nodes, "hasty")
		if len(c.errs) != 3 || !errors.Is(c.errs[2], context.DeadlineExceeded) {
			t.Errorf("the calls ended with %v", c.errs)
		}
	})
}

// TestAbandonedAtTheGrant ends contexts at the moments in which seats are given: none is lost.
func TestAbandonedAtTheGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 5})
		for range 200 {
			first, err := c.d.Enter(t.Context(), Nodes, "first")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				if seat, err := c.d.Enter(ctx, Nodes, "second"); err == nil {
					seat.Release()
				}
			}()
			synctest.Wait()
			first.Release()
			cancel()
			<-done
			c.check(Nodes, 0, 0)
		}
	})
}

func TestLongestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 5, Queues: Queues{MaxWait: 3 * time.Second}})
		c.many(1, People, "first")
		c.many(1, People, "ann")
		time.Sleep(2 * time.Second)
		c.many(1, People, "bob")
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		c.check(People, 1, 1)
		if e := (*RefusedError)(nil); len(c.errs) != 1 || !errors.As(c.errs[0], &e) || e.Reason != ReasonWait || e.Waited != 3*time.Second {
			t.Errorf("the calls ended with %v, want one refusal after 3 s", c.errs)
		}
		c.leave(People)
		if last := c.seats[len(c.seats)-1]; c.seated[len(c.seated)-1] != "bob" || last.Waited != 1500*time.Millisecond {
			t.Errorf("the seat went to %v after %s", c.seated, last.Waited)
		}
	})
}

// TestDelays compares the delays of refusals while few and while many calls wait.
func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Config{Seats: 5, Queues: Queues{PerCaller: 1, PerLevel: 1000}})
		c.many(1, Nodes, "first")
		c.many(1, Nodes, "greedy")
		within := func(waiting int) {
			t.Helper()
			middle := min(retryFirst*time.Duration(1+waiting), retryMost)
			least, most := time.Hour, time.Duration(0)
			for range 200 {
				_, err := c.d.Enter(t.Context(), Nodes, "greedy")
				e := (*RefusedError)(nil)
				if !errors.As(err, &e) {
					t.Fatal(err)
				}
				least, most = min(least, e.Delay), max(most, e.Delay)
			}
			if least < middle/2 || most >= middle*3/2 || most-least < middle/2 {
				t.Errorf("with %d calls waiting the delays are %s to %s, want them spread over %s to %s", waiting, least, most, middle/2, middle*3/2)
			}
		}
		within(1)
		for i := range 9 {
			c.many(1, Nodes, fmt.Sprint("node-", i))
		}
		within(10)
		for i := range 500 {
			c.many(1, Nodes, fmt.Sprint("other-", i))
		}
		within(510)
	})
}

func TestValidate(t *testing.T) {
	err := Queues{PerCaller: -1, MaxWait: -time.Second}.Validate("queues")
	for _, want := range []string{"queues.perCaller: ", "queues.maxWait: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := (Queues{}).Validate("queues"); err != nil {
		t.Error(err)
	}
	if err := ValidateSeats("maxInFlight", 4); err == nil || !strings.HasPrefix(err.Error(), "maxInFlight: must be at least 5") {
		t.Errorf("4 seats: %v", err)
	}
	for _, seats := range []int{0, 5, 10000} {
		if err := ValidateSeats("maxInFlight", seats); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkEnter takes and releases a seat that is free, which every call does.
func BenchmarkEnter(b *testing.B) {
	d := New(Config{})
	ctx := context.Background()
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			seat, err := d.Enter(ctx, People, "ann")
			if err != nil {
				b.Fatal(err)
			}
			seat.Release()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				seat, err := d.Enter(ctx, Nodes, "node")
				if err != nil {
					b.Error(err)
					return
				}
				seat.Release()
			}
		})
	})
}

// BenchmarkQueue passes one seat through 5,000 callers that all wait.
func BenchmarkQueue(b *testing.B) {
	d := New(Config{Seats: MinSeats, Queues: Queues{MaxWait: time.Hour}})
	ctx, cancel := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	first, err := d.Enter(ctx, Nodes, "first")
	if err != nil {
		b.Fatal(err)
	}
	calls := make(chan struct{})
	for i := range 5000 {
		callers.Go(func() {
			for {
				seat, err := d.Enter(ctx, Nodes, fmt.Sprint("node-", i))
				if err != nil {
					return
				}
				select {
				case calls <- struct{}{}:
				case <-ctx.Done():
				}
				seat.Release()
			}
		})
	}
	first.Release()
	b.ReportAllocs()
	for b.Loop() {
		<-calls
	}
	cancel()
	callers.Wait()
}
