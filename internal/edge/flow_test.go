package edge

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/pki"
)

// TestSeatsOfStartsAreReleased keeps the seat of a start for longer than a start may last.
func TestSeatsOfStartsAreReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seats := newSeats(fairness.Config{Seats: 5}, func(string) {})
		held := seats.seat(Identity{User: "ann"}, false)
		held.limit = startLimit
		inUse := func(want int) {
			t.Helper()
			if n := seats.dispatcher.Load(fairness.People).InUse; n != want {
				t.Errorf("%d seats are in use, want %d", n, want)
			}
		}
		for range 2 {
			if err := held.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(startLimit - time.Second)
			synctest.Wait()
			inUse(1)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			inUse(0)
			held.Release()
			inUse(0)
		}
		// One that ends in time leaves the next alone.
		if err := held.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		held.Release()
		time.Sleep(startLimit - time.Second)
		if err := held.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		inUse(1)
		held.Release()
	})
}

// BenchmarkSeat measures a call's level, seat and metrics while there are free seats.
func BenchmarkSeat(b *testing.B) {
	seats := newSeats(fairness.Config{}, func(string) {})
	node := Identity{User: "system:node:node-1", Groups: []string{pki.GroupNodes}}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		held := seats.seat(node, false)
		if err := held.Take(ctx); err != nil {
			b.Fatal(err)
		}
		held.Release()
	}
}
