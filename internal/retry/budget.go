// Package retry bounds how often a process repeats calls that failed. On its way to a server each
// call has one layer that repeats it, as the attempts of several would multiply: the interceptors
// of connections leave that to code that repeats a call by itself (ByCaller). The interceptors of a
// process share one budget, since a server has the most work just when many calls fail.
package retry

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/metrics"
)

// The process's budget: a tenth of all calls may be repeated for long. A full budget is enough for
// the calls that are under way when one instance of a service goes, and an idle process gains a few
// repetitions per second.
const (
	budgetRatio     = 0.1
	budgetMax       = 500
	budgetPerSecond = 5
)

// Process is the budget of this process.
var Process = NewBudget(budgetMax, budgetRatio, budgetPerSecond)

// Budget is a token bucket that calls fill and repetitions empty, as Finagle's RetryBudget and the
// retry throttling of gRPC (gRFC A6) are. It is safe for concurrent use.
type Budget struct {
	most, ratio, perSecond float64
	repeated, refused      prometheus.Counter

	mu     sync.Mutex
	tokens float64
	at     time.Time
}

// NewBudget returns a full budget for most repetitions. Each call adds ratio of a repetition, and
// each second perSecond.
func NewBudget(most, ratio, perSecond float64) *Budget {
	return &Budget{
		most: most, ratio: ratio, perSecond: perSecond, tokens: most, at: time.Now(),
		repeated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metrics.RetriesTotal, Help: "Calls that were repeated because the first attempt failed.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metrics.RetriesRefusedTotal, Help: "Calls that were not repeated because the process's budget of repetitions was used up.",
		}),
	}
}

// Called counts a call that is made for the first time.
func (b *Budget) Called() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.most, b.tokens+b.ratio)
}

// Take takes one repetition out of the budget, or returns false when there is none.
func (b *Budget) Take() bool {
	b.mu.Lock()
	now := time.Now()
	b.tokens = min(b.most, b.tokens+b.perSecond*now.Sub(b.at).Seconds())
	b.at = now
	ok := b.tokens >= 1
	if ok {
		b.tokens--
	}
	b.mu.Unlock()
	if ok {
		b.repeated.Inc()
	} else {
		b.refused.Inc()
	}
	return ok
}

// Describe implements prometheus.Collector.
func (b *Budget) Describe(out chan<- *prometheus.Desc) {
	b.repeated.Describe(out)
	b.refused.Describe(out)
}

// Collect implements prometheus.Collector.
func (b *Budget) Collect(out chan<- prometheus.Metric) {
	b.repeated.Collect(out)
	b.refused.Collect(out)
}

type byCaller struct{}

// ByCaller returns a context for calls that the caller repeats by itself, such as a loop with a
// back-off, or a gateway's caller: interceptors make one attempt.
func ByCaller(ctx context.Context) context.Context { return context.WithValue(ctx, byCaller{}, true) }

// IsByCaller reports whether ctx comes from ByCaller.
func IsByCaller(ctx context.Context) bool { return ctx.Value(byCaller{}) != nil }

// Policy says how often a call is made and how long the pauses between are.
type Policy struct {
	// Attempts is how often the call is made at most, the first time included.
	Attempts int
	// First and Longest bound the pauses, as Min and Max of a backoff.Backoff do.
	First, Longest time.Duration
}

// Do makes a call until it succeeds, repeatable says that its error is final, the attempts or the
// budget are used up, or ctx would end before the next attempt. The pauses are those of package
// backoff, and never shorter than the error asks for. Do returns the last error.
func (b *Budget) Do(ctx context.Context, p Policy, repeatable func(error) bool, call func() error) error {
	b.Called()
	pauses := backoff.Backoff{Min: p.First, Max: p.Longest}
	for attempt := 1; ; attempt++ {
		err := call()
		if err == nil || attempt >= p.Attempts || ctx.Err() != nil || !repeatable(err) {
			return err
		}
		pause := pauses.Next(err)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
			return err
		}
		if !b.Take() || backoff.Sleep(ctx, pause) != nil {
			return err
		}
	}
}
