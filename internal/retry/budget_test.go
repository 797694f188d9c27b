package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
)

var errDown, errFinal = errors.New("down"), errors.New("refused")

func again(error) bool { return true }

// TestBudget makes calls to a server that fails all of them: the repetitions end up at the budget's
// share of the calls.
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
		// 20 that the budget began with, a tenth of the calls, and what came by time, which is well under
		// a second's.
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
		overloaded := apierr.Overloaded(2*time.Second, "too much to do")
		for name, tt := range map[string]struct {
			err          error
			deadline     time.Duration
			succeedsAt   int
			attempts     int
			least, most  time.Duration
			wantsSuccess bool
		}{
			"first attempt":        {errDown, time.Minute, 1, 1, 0, 0, true},
			"third attempt":        {errDown, time.Minute, 3, 3, 0, 300 * time.Millisecond, true},
			"never":                {errDown, time.Minute, 9, 4, 0, 500 * time.Millisecond, false},
			"final error":          {errFinal, time.Minute, 9, 1, 0, 0, false},
			"as the server asks":   {overloaded, time.Minute, 2, 2, 2 * time.Second, 4 * time.Second, true},
			"longer than there is": {overloaded, time.Second, 2, 1, 0, 0, false},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
			attempts, began := 0, time.Now()
			err := NewBudget(10, 0, 0).Do(ctx, policy, func(err error) bool { return err != errFinal }, func() error {
				if attempts++; attempts == tt.succeedsAt {
					return nil
				}
				return tt.err
			})
			cancel()
			if took := time.Since(began); (err == nil) != tt.wantsSuccess || attempts != tt.attempts || took < tt.least || took > tt.most {
				t.Errorf("%s: %v after %d attempts and %s", name, err, attempts, took)
			}
		}
	})
}
