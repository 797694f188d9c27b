// Package backoff paces attempts: the pause before the next one grows exponentially with every
// failure, is spread by full jitter, so that callers who failed together do not come back together,
// and is never shorter than the server asked for.
//
// Full jitter is as described in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015):
// the pause is uniformly random between zero and the exponential limit.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
)

// MaxRetryAfter is the longest pause asked for by a server that is honoured. A server that asks for
// more, by mistake or not, cannot keep a node away for longer.
const MaxRetryAfter = time.Minute

// Backoff is the pace of one caller. The zero value is not usable: both limits must be more than
// zero. It is not safe for concurrent use.
type Backoff struct {
	// Min bounds the first pause, and Max every pause that the server does not ask for.
	Min, Max time.Duration

	limit time.Duration
}

// Reset makes the next pause the first again. Callers reset after success.
func (b *Backoff) Reset() { b.limit = 0 }

// Next returns the pause after an attempt that failed with err, which may be nil: a random one of
// at most Min after the first failure, of at most twice the limit before after every further one,
// and of at most Max. When err carries a RetryInfo, as answers of overloaded servers do, the pause
// is that delay, up to MaxRetryAfter, and a random part on top that is at most as long as the
// larger of the delay and the limit.
func (b *Backoff) Next(err error) time.Duration {
	b.limit = min(max(b.Min, 2*b.limit), b.Max)
	asked, ok := apierr.RetryAfter(err)
	if !ok || asked <= 0 {
		return upTo(b.limit)
	}
	asked = min(asked, MaxRetryAfter)
	return asked + upTo(max(asked, b.limit))
}

// Wait sleeps for Next(err) and returns nil, or the error of ctx as soon as that ends.
func (b *Backoff) Wait(ctx context.Context, err error) error { return Sleep(ctx, b.Next(err)) }

// Retry calls f until it returns nil, and waits after each failure. It returns nil, or the error of
// ctx when that ends. failed, when not nil, receives each failure and the pause that follows.
func (b *Backoff) Retry(ctx context.Context, f func(context.Context) error, failed func(err error, pause time.Duration)) error {
	for {
		err := f(ctx)
		if err == nil {
			b.Reset()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause := b.Next(err)
		if failed != nil {
			failed(err, pause)
		}
		if err := Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// Sleep returns nil after d, or the error of ctx as soon as that ends.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return ctx.Err()
	}
}

// upTo returns a random duration of more than zero and at most limit.
func upTo(limit time.Duration) time.Duration { return 1 + rand.N(max(1, limit)) }
