package storage

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
