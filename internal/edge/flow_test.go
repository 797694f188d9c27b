package rpc

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/pki"
)

// TestStartsAreBounded keeps the seat of a start for longer than a start may last.
func TestStartsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seats := newSeats(fairness.Config{Seats: 5}, func(string) {})
		held := seats.seat(t.Context(), Identity{User: "ann"}, "/xebec.api.v1.ResourceService/Watch")
		held.limit = startLimit
		inUse := func(want int) {
			t.Helper()
			if n := seats.dispatcher.Load(fairness.People).InUse; n != want {
				t.Errorf("%d seats are in use, want %d", n, want)
			}
		}
		for range 2 {
			if err := held.take(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(startLimit - time.Second)
			synctest.Wait()
			inUse(1)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			inUse(0)
			held.release()
			inUse(0)
		}
		// One that ends in time leaves the next alone.
		if err := held.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		held.release()
		time.Sleep(startLimit - time.Second)
		if err := held.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		inUse(1)
		held.release()
	})
}

// BenchmarkSeat is what the order of calls costs each call while there are free seats: its level, its seat and the metrics.
func BenchmarkSeat(b *testing.B) {
	seats := newSeats(fairness.Config{}, func(string) {})
	node := Identity{User: "system:node:node-1", Groups: []string{pki.GroupNodes}}
	ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("user-agent", "xebec", "content-type", "application/grpc"))
	b.ReportAllocs()
	for b.Loop() {
		held := seats.seat(ctx, node, "/xebec.api.v1.ResourceService/Get")
		if err := held.take(ctx); err != nil {
			b.Fatal(err)
		}
		held.release()
	}
}
