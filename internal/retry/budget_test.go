package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("down")

func again(error) Verdict { return Verdict{Repeat: true} }

// TestBudget makes calls to a server that fails all of them: the repetitions end up at the budget's share of the calls.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(20, 0.1, 1)
		attempts := 0
		const calls = 1000
		for range calls {
			err := b.Do(t.Context(), Policy{Attempts: 4, First: time.Millisecond, Longest: time.Millisecond}, again, func() error {
				attempts++
				return errDown
			})
			if !errors.Is(err, errDown) {
				t.Fatalf("got %v, want the call's error", err)
			}
		}
		// 20 that the budget began with, a tenth of the calls, and what came by time, which is well under a second's.
		if repeated := attempts - calls; repeated < 100 || repeated > 122 {
			t.Errorf("%d of %d calls were repeated", repeated, calls)
		}
		time.Sleep(10 * time.Second)
		attempts = 0
		_ = b.Do(t.Context(), Policy{Attempts: 4, First: time.Millisecond, Longest: time.Millisecond}, again, func() error { attempts++; return errDown })
		if attempts != 4 {
			t.Errorf("%d attempts ten seconds later, want 4", attempts)
		}
	})
}

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := Policy{Attempts: 4, First: 100 * time.Millisecond, Longest: 200 * time.Millisecond}
		for name, tt := range map[string]struct {
			judge        func(error) Verdict
			deadline     time.Duration
			succeedsAt   int
			attempts     int
			least, most  time.Duration
			wantsSuccess bool
		}{
			"first attempt":        {again, time.Minute, 1, 1, 0, 0, true},
			"third attempt":        {again, time.Minute, 3, 3, 150 * time.Millisecond, 300 * time.Millisecond, true},
			"never":                {again, time.Minute, 9, 4, 250 * time.Millisecond, 500 * time.Millisecond, false},
			"final error":          {func(error) Verdict { return Verdict{} }, time.Minute, 9, 1, 0, 0, false},
			"as the server asks":   {func(error) Verdict { return Verdict{Repeat: true, After: 2 * time.Second} }, time.Minute, 2, 2, 2 * time.Second, 2500 * time.Millisecond, true},
			"longer than there is": {func(error) Verdict { return Verdict{Repeat: true, After: 2 * time.Second} }, time.Second, 2, 1, 0, 0, false},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
			attempts, began := 0, time.Now()
			err := NewBudget(10, 0, 0).Do(ctx, policy, tt.judge, func() error {
				if attempts++; attempts == tt.succeedsAt {
					return nil
				}
				return errDown
			})
			cancel()
			if took := time.Since(began); (err == nil) != tt.wantsSuccess || attempts != tt.attempts || took < tt.least || took > tt.most {
				t.Errorf("%s: %v after %d attempts and %s", name, err, attempts, took)
			}
		}
	})
}
