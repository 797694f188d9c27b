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

	"github.com/xebec-project/xebec/internal/retry"
)

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
				p := newAdaptiveTimeout(time.Second, 4*time.Second)
				var requests atomic.Int32
				began := time.Now()
				_, err := hedged(ctx, p, func(ctx context.Context) (int, error) {
					n := int(requests.Add(1)) - 1
					if !retry.IsByCaller(ctx) {
						t.Error("the interceptor of etcd's client would repeat the request as well")
					}
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
