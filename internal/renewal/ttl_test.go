package renewal

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ttl := TTL{Least: 5 * time.Second, Most: time.Minute, Calm: Calm}
		want := func(d time.Duration) {
			t.Helper()
			if got := ttl.Current(); got != d {
				t.Fatalf("a lease lasts %v, want %v", got, d)
			}
		}
		answers := func(took time.Duration, n int) (shorter bool) {
			for range n {
				time.Sleep(2 * time.Second)
				shorter = ttl.Answered(took) || shorter
			}
			return shorter
		}
		want(5 * time.Second)
		for _, d := range []time.Duration{10, 20, 40, 60, 60} {
			ttl.Lost()
			want(d * time.Second)
		}
		if answers(time.Millisecond, 29) {
			t.Error("a shorter lease is advised before a minute of quick answers")
		}
		ttl.Lost()
		if answers(4*time.Second, 60) {
			t.Error("a shorter lease is advised though eight answers take longer than half of its time")
		}
		want(time.Minute)
		// The window in which an answer of 4 s was seen ends first.
		if !answers(2500*time.Millisecond, 61) {
			t.Error("no shorter lease is advised after a minute of answers within 2.5 s")
		}
		want(20 * time.Second)
		if !answers(time.Millisecond, 61) {
			t.Error("no shorter lease is advised after a minute of quick answers")
		}
		want(5 * time.Second)
		if answers(time.Millisecond, 100) {
			t.Error("a shorter lease than the least is advised")
		}
		want(5 * time.Second)
	})
}
