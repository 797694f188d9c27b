package backoff_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
)

func TestPausesGrowAndAreSpread(t *testing.T) {
	const callers = 500
	limits := []time.Duration{100, 200, 400, 800, 1000, 1000}
	var sum [6]time.Duration
	for range callers {
		b := backoff.Backoff{Min: 100 * time.Millisecond, Max: time.Second}
		for i, limit := range limits {
			limit *= time.Millisecond
			pause := b.Next(errors.New("failed"))
			if pause <= 0 || pause > limit {
				t.Fatalf("pause %d is %v, want more than 0 and at most %v", i, pause, limit)
			}
			sum[i] += pause
		}
		b.Reset()
		if pause := b.Next(nil); pause > 100*time.Millisecond {
			t.Fatalf("the first pause after a reset is %v", pause)
		}
	}
	// Uniformly random pauses are half of the limit on average: with 500 of them within a tenth of it,
	// but for one run in 10^13.
	for i, limit := range limits {
		limit *= time.Millisecond
		if mean := sum[i] / callers; mean < limit*4/10 || mean > limit*6/10 {
			t.Errorf("the pauses %d are %v on average, want about half of %v", i, mean, limit)
		}
	}
}

func TestRetryInfoIsHonoured(t *testing.T) {
	b := backoff.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond}
	busy := fmt.Errorf("grant a lease: %w", apierr.Overloaded(2*time.Second, "busy"))
	seen := map[time.Duration]bool{}
	for range 100 {
		pause := b.Next(busy)
		if pause < 2*time.Second || pause > 4*time.Second+1 {
			t.Fatalf("paused %v where the server asked for 2 s", pause)
		}
		seen[pause] = true
	}
	if len(seen) < 90 {
		t.Errorf("100 pauses have %d values: callers come back together", len(seen))
	}
	if pause := b.Next(apierr.Overloaded(24*time.Hour, "broken clock")); pause > 2*backoff.MaxRetryAfter+1 {
		t.Errorf("a server keeps callers away for %v", pause)
	}
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := backoff.Backoff{Min: time.Second, Max: time.Minute}
		calls, reported := 0, 0
		err := b.Retry(t.Context(), func(context.Context) error {
			if calls++; calls < 4 {
				return apierr.Overloaded(10*time.Second, "busy")
			}
			return nil
		}, func(err error, pause time.Duration) {
			reported++
			if !apierr.IsRetryable(err) || pause < 10*time.Second {
				t.Errorf("reported %v and a pause of %v", err, pause)
			}
		})
		if err != nil || calls != 4 || reported != 3 {
			t.Errorf("%d calls, %d failures reported, %v", calls, reported, err)
		}
		if took := time.Since(began); took < 30*time.Second {
			t.Errorf("three pauses took %v where the server asked for 10 s each", took)
		}
		if pause := b.Next(nil); pause > time.Second {
			t.Errorf("the pause after success is %v", pause)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began = time.Now()
		err = b.Retry(ctx, func(context.Context) error { return apierr.Overloaded(time.Minute, "busy") }, nil)
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 5*time.Second {
			t.Errorf("ended with %v after %v, want the context's end after 5 s", err, took)
		}
	})
}
