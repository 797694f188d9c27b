package storage

import (
	"testing"
	"time"
)

func TestAdaptiveTimeout(t *testing.T) {
	const ms = time.Millisecond
	p := newAdaptiveTimeout(500*ms, 3*time.Second)
	want := func(what string, least, most time.Duration) {
		t.Helper()
		if got := p.limit(); got < least || got > most {
			t.Errorf("%s: the limit is %v, want %v to %v", what, got, least, most)
		}
	}
	want("at first", 500*ms, 500*ms)
	for range 50 {
		p.answered(5 * ms)
	}
	want("etcd is quick", 500*ms, 500*ms)

	limit := p.limit()
	for range 20 {
		p.exceeded(limit)
	}
	want("one time-out of many requests", time.Second, time.Second)
	p.exceeded(time.Second)
	want("another", 2*time.Second, 2*time.Second)
	p.exceeded(limit)
	want("a late one", 2*time.Second, 2*time.Second)
	p.exceeded(2 * time.Second)
	want("the ceiling", 3*time.Second, 3*time.Second)
	if got := p.estimate(); got != 500*ms {
		t.Errorf("time-outs changed the estimate to %v", got)
	}
	p.answered(5 * ms)
	want("a quick answer: one member was dead", 500*ms, 500*ms)

	p.exceeded(500 * ms)
	p.answered(1200 * ms)
	want("a slow answer", 1250*ms, 1500*ms)
	for range 10 {
		p.answered(1200 * ms)
	}
	want("slow answers", 1250*ms, 3*time.Second)
	n := 0
	for ; p.limit() > 500*ms && n < 1000; n++ {
		p.answered(5 * ms)
	}
	if n > 30 {
		t.Errorf("%d quick answers until a dead leader is noticed quickly again", n)
	}
	if p := newAdaptiveTimeout(10*time.Second, time.Second); p.limit() != 10*time.Second {
		t.Errorf("a ceiling below the floor: %v", p.limit())
	}
}
