package storage

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
)

// The past is cut at a moment, and an error names the oldest that is left.
func TestCompaction(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	var moments []time.Time
	var revisions []int64
	key := podKey("default", "web")
	expect := ExpectAbsent
	for range 4 {
		revisions = append(revisions, mustCommit(t, s, put(t, key, "", expect)))
		expect = ExpectExists
		told := int64(0)
		for range 2 { // the store's own clock may tick as well
			var err error
			if told, err = s.tick(ctx, told); err != nil {
				t.Fatal(err)
			}
		}
		moments = append(moments, time.Now())
	}
	if err := s.compact(ctx, moments[0].Add(-time.Hour)); err != nil {
		t.Errorf("compact to before the clock: %v", err)
	}
	if _, err := s.RevisionAt(ctx, moments[0]); err != nil {
		t.Errorf("nothing was to be compacted: %v", err)
	}
	for range 2 { // a second store does the same
		if err := s.compact(ctx, moments[2]); err != nil {
			t.Fatal(err)
		}
	}
	for i, at := range moments {
		revision, err := s.RevisionAt(ctx, at)
		if i >= 2 {
			if err != nil || revision < revisions[i] {
				t.Errorf("moment %d: revision %d, %v; want at least %d", i, revision, err, revisions[i])
			}
			continue
		}
		past, ok := errors.AsType[*PastError](err)
		if !ok || !errors.Is(err, ErrCompacted) || past.Oldest.Before(moments[1]) || past.Oldest.After(moments[2]) {
			t.Errorf("moment %d: %v, want an error that names a moment up to %s", i, err, moments[2])
		}
		if ok && !strings.Contains(err.Error(), past.Oldest.UTC().Format(time.RFC3339)) {
			t.Errorf("%v does not name the oldest time", err)
		}
	}
	oldest, err := s.Oldest(ctx)
	if err != nil || oldest.Before(moments[1]) || oldest.After(moments[2]) {
		t.Errorf("the oldest time is %s, %v", oldest, err)
	}
	if used, err := s.usedBytes(ctx); err != nil || used <= 0 {
		t.Errorf("etcd uses %d bytes, %v", used, err)
	}
	// All of it runs at each tick: with nothing left to allow, everything that is older than the span
	// goes.
	other, err := New(Config{}, kinds.NewScheme(), c.Client(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	other.cfg.KeepPast = 0
	ticks := make(chan time.Time)
	go other.runCompaction(ctx, ticks)
	ticks <- time.Time{}
	ticks <- time.Time{} // taken once the first is done
	if _, err := s.RevisionAt(ctx, moments[2]); !errors.Is(err, ErrCompacted) {
		t.Errorf("the past was not cut: %v", err)
	}
	if _, err := s.Get(ctx, key); err != nil {
		t.Errorf("the present: %v", err)
	}
}

func TestSpanOfThePast(t *testing.T) {
	s := &Store{cfg: Config{KeepPast: 30 * time.Minute, KeepPastBytes: 1000}}
	for _, tt := range []struct {
		span time.Duration
		used int64
		want time.Duration
	}{
		{30 * time.Minute, 100, 30 * time.Minute},
		{30 * time.Minute, 1001, 15 * time.Minute},
		{90 * time.Second, 1001, time.Minute},
		{time.Minute, 1 << 40, time.Minute},
		{8 * time.Minute, 900, 8 * time.Minute},
		{8 * time.Minute, 700, 10 * time.Minute},
		{29 * time.Minute, 700, 30 * time.Minute},
	} {
		if got := s.span(tt.span, tt.used); got != tt.want {
			t.Errorf("with %d bytes in use %s of the past become %s, want %s", tt.used, tt.span, got, tt.want)
		}
	}
	if _, err := New(Config{KeepPast: time.Second}, nil, nil, nil); err == nil {
		t.Error("a past of a second is accepted")
	}
}
