package storage

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

// A time names the revision that was then, as long as etcd has it.
func TestRevisionAt(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	if _, err := s.RevisionAt(ctx, time.Now().Add(time.Hour)); !errors.Is(err, ErrFutureTime) {
		t.Errorf("in an hour: %v, want ErrFutureTime", err)
	}
	// The store's own clock may tick as well: what it adds tells the same story.
	tick := func() time.Time {
		t.Helper()
		for told := int64(0); ; {
			revision, err := s.tick(ctx, told)
			if err != nil {
				t.Fatal(err)
			}
			if told != 0 {
				return time.Now()
			}
			told = revision
		}
	}
	before := time.Now()
	first, second := podKey("default", "first"), podKey("default", "second")
	mustCommit(t, s, put(t, first, "", ExpectAbsent))
	one := tick()
	written := mustCommit(t, s, put(t, second, "", ExpectAbsent))
	two := tick()
	mustCommit(t, s, Write{Key: first, Delete: true, Expect: ExpectExists})
	three := tick()

	for _, tt := range []struct {
		name          string
		at            time.Time
		first, second bool
	}{{"one", one, true, false}, {"two", two, true, true}, {"three", three, false, true}} {
		revision, err := s.RevisionAt(ctx, tt.at)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		for key, want := range map[Key]bool{first: tt.first, second: tt.second} {
			if _, err := s.GetAt(ctx, key, revision); (err == nil) != want || err != nil && !errors.Is(err, ErrNotFound) {
				t.Errorf("at %s, revision %d, %s is there: %v, want %v", tt.name, revision, key, err, want)
			}
		}
	}
	if _, err := s.RevisionAt(ctx, before); !errors.Is(err, ErrCompacted) {
		t.Errorf("before the clock: %v, want ErrCompacted", err)
	}
	if _, err := c.Client().Compact(ctx, written+1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RevisionAt(ctx, one.Add(-time.Hour)); !errors.Is(err, ErrCompacted) {
		t.Errorf("before what etcd has: %v, want ErrCompacted", err)
	}
	if revision, err := s.RevisionAt(ctx, three); err != nil || revision <= written {
		t.Errorf("after a compaction: revision %d, %v", revision, err)
	}
}

// A cluster in which nothing is written is left alone by the clocks of all its apiservers.
func TestClockRests(t *testing.T) {
	c := etcdtest.New(t, 1)
	ctx, cancel := context.WithCancel(deadline(t, 30*time.Second))
	defer cancel()
	s, _ := openStore(t, c.Client(), Config{})
	other, _ := openStore(t, c.Client(), Config{})
	mustCommit(t, s, put(t, podKey("default", "web"), "", ExpectAbsent))
	ticks := make(chan time.Time)
	for _, of := range []*Store{s, other} {
		go of.runClock(ctx, ticks)
	}
	revision := func() int64 {
		t.Helper()
		now, err := s.etcdRevision(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.awaitRevision(ctx, now), other.awaitRevision(ctx, now)); err != nil {
			t.Fatal(err)
		}
		return now
	}
	// Every store learns in two ticks that there is nothing to tell: one writes the clock or sees that
	// it was written.
	for range 8 {
		ticks <- time.Time{}
		revision()
	}
	before := revision()
	for range 8 {
		ticks <- time.Time{}
	}
	if after := revision(); after != before {
		t.Errorf("the revision went from %d to %d with nothing written", before, after)
	}
}
