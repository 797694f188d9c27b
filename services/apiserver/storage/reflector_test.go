package storage

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/etcdtest"
)

// TestReadyThroughInterruptions keeps a store ready while its watch is interrupted for less than
// brokenLimit.
func TestReadyThroughInterruptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{cache: newCache(Config{}, nil), reflector: newReflector(newAdaptiveTimeout(stallLimit, stallLimit))}
		if s.reflector.usable() {
			t.Error("usable before the cache was filled")
		}
		s.reflector.interrupted()
		if s.reflector.usable() {
			t.Error("usable after a first attempt that failed")
		}
		s.reflector.live.Store(true)
		for range 3 {
			s.reflector.interrupted()
			time.Sleep(brokenLimit - time.Second)
			// Attempts that fail do not restart the time.
			s.reflector.interrupted()
			if !s.reflector.usable() {
				t.Errorf("not usable after %s without a watch", brokenLimit-time.Second)
			}
			time.Sleep(2 * time.Second)
			if s.reflector.usable() {
				t.Errorf("usable after %s without a watch", brokenLimit+time.Second)
			}
			close(s.reflector.filled)
			s.setLive(0)
			if !s.reflector.usable() {
				t.Error("not usable with a watch")
			}
			s.reflector.filled = make(chan struct{})
		}
	})
}

// TestReflectorBacksOff follows an etcd that refuses every watch: attempts become rare, and those
// of two stores spread. A watch that ran for a while, or that stalled, is tried again soon.
func TestReflectorBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := func(duration, watched time.Duration, failure error) []time.Duration {
			s := &Store{cache: newCache(Config{}, nil), reflector: newReflector(newAdaptiveTimeout(stallLimit, stallLimit)), log: zap.NewNop()}
			ctx, cancel := context.WithTimeout(t.Context(), duration)
			defer cancel()
			began := time.Now()
			var at []time.Duration
			s.keepFollowing(ctx, func(ctx context.Context, _ bool) error {
				at = append(at, time.Since(began))
				_ = backoff.Sleep(ctx, watched)
				return failure
			})
			return at
		}
		refused := errors.New("refused")
		one, other := attempts(5*time.Minute, 0, refused), attempts(5*time.Minute, 0, refused)
		// Pauses of 1.5 s on average.
		if n := len(one); n < 120 || n > 350 {
			t.Errorf("%d attempts in five minutes, want about 200", n)
		}
		for i := range one[1:] {
			if pause := one[i+1] - one[i]; pause <= 0 || pause > watchBackoffMax {
				t.Errorf("attempt %d follows after %s", i+1, pause)
			}
		}
		if slices.Equal(one, other) {
			t.Error("two stores try at the same times")
		}
		if n := len(attempts(5*time.Minute, 4*time.Second, refused)); n < 72 {
			t.Errorf("%d attempts in five minutes after watches of four seconds, want a pause of at most 50 ms after each", n)
		}
		if n := len(attempts(time.Minute, 0, errStalled)); n < 1000 {
			t.Errorf("%d attempts in a minute after stalls, want a pause of at most 50 ms after each", n)
		}
	})
}

// TestReadyWithoutQuorum takes the quorum from etcd, which ends the watch, and gives it back.
func TestReadyWithoutQuorum(t *testing.T) {
	c := etcdtest.New(t, 3)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, time.Minute)
	until := func(live bool) {
		t.Helper()
		for s.reflector.live.Load() != live {
			select {
			case <-ctx.Done():
				t.Fatalf("the watch is not live=%t", live)
			case <-time.After(time.Millisecond):
			}
		}
	}
	for _, m := range c.Members()[:2] {
		m.Kill()
	}
	until(false)
	if !s.Ready() {
		t.Error("the store is not ready as soon as its watch is interrupted")
	}
	var starting sync.WaitGroup
	for _, m := range c.Members()[:2] {
		starting.Go(m.Start)
	}
	starting.Wait()
	until(true)
	if !s.Ready() {
		t.Error("the store is not ready with a watch")
	}
}
