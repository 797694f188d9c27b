package controller

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
)

func key(name string) Key { return Key{Namespace: "default", Name: name} }

// takeNow takes a key that must be due.
func takeNow(t *testing.T, q *queue) Key {
	t.Helper()
	if due, _ := q.depth(); due == 0 {
		t.Fatal("nothing is due")
	}
	k, _, ok := q.take()
	if !ok {
		t.Fatal("the queue is closed")
	}
	return k
}

func depths(q *queue) string {
	due, active := q.depth()
	return fmt.Sprintf("%d due, %d active", due, active)
}

func TestQueueHoldsEachKeyOnce(t *testing.T) {
	q := newQueue()
	defer q.close()
	q.add(key("a"))
	q.add(key("b"))
	q.add(key("a"))
	if got := depths(q); got != "2 due, 0 active" {
		t.Fatal(got)
	}
	if a, b := takeNow(t, q), takeNow(t, q); a != key("a") || b != key("b") {
		t.Errorf("took %v, %v", a, b)
	}
	// A key that is active becomes due, but cannot be taken.
	q.add(key("a"))
	q.add(key("a"))
	if len(q.waiting) != 0 {
		t.Fatal("a key can be taken twice at once")
	}
	q.done(key("a"))
	q.done(key("b"))
	if got := depths(q); got != "1 due, 0 active" {
		t.Fatal(got)
	}
	if k := takeNow(t, q); k != key("a") {
		t.Errorf("took %v", k)
	}
}

func TestQueueDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.close()
		begun := time.Now()
		q.addAfter(key("late"), 10*time.Second)
		q.addAfter(key("soon"), 2*time.Second)
		q.addAfter(key("late"), 20*time.Second) // Later than it is due: no effect.
		q.addAfter(key("moved"), time.Minute)
		q.addAfter(key("moved"), 5*time.Second)
		for _, want := range []struct {
			name string
			at   time.Duration
		}{{"soon", 2 * time.Second}, {"moved", 5 * time.Second}, {"late", 10 * time.Second}} {
			k, _, ok := q.take()
			if at := time.Since(begun); !ok || k != key(want.name) || at != want.at {
				t.Errorf("took %v after %v, want %s after %v", k, at, want.name, want.at)
			}
			q.done(k)
		}
		if len(q.delayed.at) != 0 {
			t.Errorf("still delayed: %v", q.delayed.at)
		}
	})
}

func TestQueueBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.close()
		k := key("a")
		limit, longest := retryMin, time.Duration(0)
		for n := range 40 {
			begun := time.Now()
			pause := q.retry(k, nil)
			if pause <= 0 || pause > limit {
				t.Errorf("failure %d: a pause of %v, want at most %v", n, pause, limit)
			}
			longest, limit = max(longest, pause), min(2*limit, retryMax)
			taken, _, _ := q.take()
			if waited := time.Since(begun); taken != k || waited != pause {
				t.Errorf("took %v after %v, want %v after %v", taken, waited, k, pause)
			}
			q.done(taken)
		}
		if longest < retryMax/4 {
			t.Errorf("the longest of 40 pauses is %v", longest)
		}
		q.forget(k)
		if pause := q.retry(k, nil); pause > retryMin {
			t.Errorf("after forget: a pause of %v", pause)
		}
	})
}

func TestQueueCloseReleasesTakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		released := make(chan bool)
		go func() {
			_, _, ok := q.take()
			released <- ok
		}()
		synctest.Wait()
		q.close()
		if <-released {
			t.Error("took a key from a closed queue")
		}
		q.add(key("a"))
		q.addAfter(key("a"), time.Second)
		if got := depths(q); got != "0 due, 0 active" {
			t.Error(got)
		}
	})
}

func TestRetryHonoursRetryInfo(t *testing.T) {
	q := newQueue()
	defer q.close()
	k := Key{Name: "a"}
	if pause := q.retry(k, apierr.Overloaded(3*time.Second, "busy")); pause < 3*time.Second || pause > 6*time.Second {
		t.Errorf("the pause is %v where the server asked for 3 s", pause)
	}
	if pause := q.retry(k, apierr.Overloaded(24*time.Hour, "broken clock")); pause > 2*backoff.MaxRetryAfter {
		t.Errorf("a server keeps a key away for %v", pause)
	}
}
