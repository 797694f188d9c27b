package storage

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestPatience(t *testing.T) {
	const ms = time.Millisecond
	p := newPatience(500*ms, 3*time.Second)
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
	if p := newPatience(10*time.Second, time.Second); p.limit() != 10*time.Second {
		t.Errorf("a ceiling below the floor: %v", p.limit())
	}
}

// TestHedged makes requests of an etcd whose answers take a time, or never come.
func TestHedged(t *testing.T) {
	const never = time.Hour
	for name, tc := range map[string]struct {
		answers  []time.Duration // of the requests in their order, the last of all further ones
		errs     []error
		want     error
		took     time.Duration // at most
		requests int           // at most
	}{
		"quick":                    {[]time.Duration{time.Millisecond}, nil, nil, time.Millisecond, 1},
		"slow":                     {[]time.Duration{1900 * time.Millisecond}, nil, nil, 1900 * time.Millisecond, 2},
		"very slow":                {[]time.Duration{9 * time.Second}, nil, nil, 9 * time.Second, 4},
		"the first member is dead": {[]time.Duration{never, time.Millisecond}, nil, nil, 1001 * time.Millisecond, 2},
		"all are dead":             {[]time.Duration{never}, nil, context.DeadlineExceeded, 10 * time.Second, 5},
		"refused":                  {[]time.Duration{time.Millisecond}, []error{ErrCompacted}, ErrCompacted, time.Millisecond, 1},
		"failed once": {
			[]time.Duration{time.Millisecond}, []error{status.Error(codes.Unavailable, "leader changed"), nil}, nil, 100 * time.Millisecond, 2,
		},
		"failing": {
			[]time.Duration{time.Millisecond}, []error{status.Error(codes.Unavailable, "no leader")}, context.DeadlineExceeded, 10 * time.Second, 60,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				p := newPatience(time.Second, 4*time.Second)
				var requests atomic.Int32
				began := time.Now()
				_, err := hedged(ctx, p, func(ctx context.Context) (int, error) {
					n := int(requests.Add(1)) - 1
					var err error
					if len(tc.errs) > 0 {
						err = tc.errs[min(n, len(tc.errs)-1)]
					}
					select {
					case <-time.After(tc.answers[min(n, len(tc.answers)-1)]):
						return n, refusal(err)
					case <-ctx.Done():
						return 0, ctx.Err()
					}
				})
				synctest.Wait()
				if !errors.Is(err, tc.want) {
					t.Errorf("the error is %v, want %v", err, tc.want)
				}
				if took, n := time.Since(began), int(requests.Load()); took > tc.took || n > tc.requests {
					t.Errorf("took %v and %d requests, want at most %v and %d", took, n, tc.took, tc.requests)
				}
			})
		})
	}
}

// refusal gives an error of this package the code that an error of etcd has, which a refusal needs
// to be recognized.
func refusal(err error) error {
	if errors.Is(err, ErrCompacted) {
		return refused{err}
	}
	return err
}

type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

func (refused) GRPCStatus() *status.Status { return status.New(codes.OutOfRange, "compacted") }
