package renewal_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/renewal"
)

// servers renews a lease as servers do that take a time for each answer.
type servers struct {
	ttl time.Duration
	// delay returns the time that the n-th stream takes for an answer, and with which error.
	delay func(stream int) (time.Duration, error)

	mu      sync.Mutex
	lapses  time.Time // as the servers know it
	streams int       // opened so far
	open    int
	renewed int // answers
	asked   int
}

func (s *servers) serve(ctx context.Context) (renewal.Renew, error) {
	s.mu.Lock()
	n := s.streams
	s.streams++
	s.open++
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
	})
	return func() (time.Duration, error) {
		s.mu.Lock()
		s.asked++
		delay, err := s.delay(n)
		s.mu.Unlock()
		if err != nil {
			return 0, err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if time.Now().After(s.lapses) {
			return 0, fmt.Errorf("server: %w", renewal.ErrGone)
		}
		s.lapses = time.Now().Add(s.ttl)
		s.renewed++
		return s.ttl, nil
	}, nil
}

// keep keeps a lease of 5 s for two minutes and returns the error that ended it.
func (s *servers) keep(t *testing.T) error {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s.ttl = 5 * time.Second
	s.lapses = time.Now().Add(s.ttl)
	deadline := s.lapses
	return renewal.Keep(ctx, renewal.Lease{
		Deadline: deadline, Due: time.Now().Add(s.ttl / 3), Interval: s.ttl / 3, Patience: s.ttl / 5, Open: s.serve,
		Renewed: func(now time.Time) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !now.After(deadline) || now.After(s.lapses) {
				t.Errorf("the deadline is %v after %v, and the servers' %v", now, deadline, s.lapses)
			}
			deadline = now
		},
	})
}

const never = time.Hour

// TestLeaseIsKept keeps a lease for two minutes.
func TestLeaseIsKept(t *testing.T) {
	fixed := func(d time.Duration) func(int) (time.Duration, error) {
		return func(int) (time.Duration, error) { return d, nil }
	}
	for name, tc := range map[string]struct {
		delay   func(stream int) (time.Duration, error)
		most    int // renewals asked for
		streams int // opened, at most
	}{
		"quick":                         {delay: fixed(time.Millisecond), most: 75, streams: 1},
		"slower than the patience":      {delay: fixed(1500 * time.Millisecond), most: 80, streams: 5},
		"much slower than the patience": {delay: fixed(2400 * time.Millisecond), most: 75, streams: 5},
		"hardly in time":                {delay: fixed(3 * time.Second), most: 120, streams: 40},
		"every second server hangs": {delay: func(n int) (time.Duration, error) {
			if n%2 == 0 {
				return never, nil
			}
			return time.Millisecond, nil
		}, most: 80, streams: 2},
		"every second server refuses": {delay: func(n int) (time.Duration, error) {
			if n%2 == 0 {
				return 0, errors.New("no leader")
			}
			return time.Millisecond, nil
		}, most: 80, streams: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &servers{delay: tc.delay}
				if err := s.keep(t); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("the lease was lost: %v", err)
				}
				synctest.Wait()
				if s.asked > tc.most || s.streams > tc.streams || s.open != 0 {
					t.Errorf("%d renewals over %d streams, want at most %d over %d; %d streams are open", s.asked, s.streams, tc.most, tc.streams, s.open)
				}
			})
		})
	}
}

// TestPatienceShrinks has servers be slow for a while, and then one of them hang: it is noticed as
// soon as before.
func TestPatienceShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var hung, noticed time.Time
		s := &servers{}
		first := -1
		s.delay = func(n int) (time.Duration, error) {
			switch passed := time.Since(began); {
			case passed < 30*time.Second:
				return 2 * time.Second, nil
			case passed < 60*time.Second:
				return time.Millisecond, nil
			case first == -1:
				first, hung = n, time.Now()
				return never, nil
			case noticed.IsZero() && n != first:
				noticed = time.Now()
			}
			return time.Millisecond, nil
		}
		if err := s.keep(t); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the lease was lost: %v", err)
		}
		if d := noticed.Sub(hung); hung.IsZero() || noticed.IsZero() || d > 1100*time.Millisecond {
			t.Errorf("a server that hangs was left after %v", d)
		}
	})
}

func TestLeaseIsLost(t *testing.T) {
	down := errors.New("down")
	for name, tc := range map[string]struct {
		delay       func(stream int) (time.Duration, error)
		want        error
		least, most time.Duration
	}{
		"all hang": {func(int) (time.Duration, error) { return never, nil }, nil, 5 * time.Second, 5 * time.Second},
		"all fail": {func(int) (time.Duration, error) { return 0, down }, down, 5 * time.Second, 5 * time.Second},
		"gone": {
			func(int) (time.Duration, error) { return 0, fmt.Errorf("server: %w", renewal.ErrGone) }, renewal.ErrGone,
			5 * time.Second / 3, 5*time.Second/3 + time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := &servers{delay: tc.delay}
				err := s.keep(t)
				if err == nil || errors.Is(err, context.DeadlineExceeded) || tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("the error is %v, want %v", err, tc.want)
				}
				if took := time.Since(began); took < tc.least || took > tc.most {
					t.Errorf("lost after %v, want %v to %v", took, tc.least, tc.most)
				}
				synctest.Wait()
				if s.open != 0 || s.asked > 40 {
					t.Errorf("%d renewals; %d streams are open", s.asked, s.open)
				}
			})
		})
	}
}

// TestNoConnection leaves a lease without a connection for most of its time: the one stream that
// waits for it renews the lease once it is there.
func TestNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{ttl: 10 * time.Second, lapses: time.Now().Add(10 * time.Second), delay: func(int) (time.Duration, error) { return time.Millisecond, nil }}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		opened := 0
		connect := time.Now().Add(9 * time.Second)
		ended := make(chan error, 1)
		go func() {
			ended <- renewal.Keep(ctx, renewal.Lease{
				Deadline: s.lapses, Due: time.Now().Add(s.ttl / 3), Interval: s.ttl / 3, Patience: s.ttl / 5,
				Open: func(ctx context.Context) (renewal.Renew, error) {
					opened++
					time.Sleep(time.Until(connect))
					return s.serve(ctx)
				},
			})
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if opened != 1 || s.renewed < 10 {
			t.Errorf("%d streams and %d renewals, want 1 stream and 10 renewals or more", opened, s.renewed)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestNeverConnected says of a lease that is lost why.
func TestNeverConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := renewal.Keep(t.Context(), renewal.Lease{
			Deadline: time.Now().Add(10 * time.Second), Due: time.Now().Add(3 * time.Second), Interval: 3 * time.Second, Patience: 2 * time.Second,
			Open: func(ctx context.Context) (renewal.Renew, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		if err == nil || err.Error() != "no connection to a server" {
			t.Errorf("got %v", err)
		}
	})
}
