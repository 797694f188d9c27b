package client_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// tick lets 10 ms of fake time pass.
func tick(t *testing.T) {
	t.Helper()
	after(t, 10*time.Millisecond)
}

// after lets fake time pass.
func after(t *testing.T, d time.Duration) {
	t.Helper()
	<-time.After(d)
	synctest.Wait()
}

func TestLeaseIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		l, err := client.KeepLease(t.Context(), c, 5*time.Second, func(err error) { t.Errorf("lost: %v", err) })
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			after(t, 4*time.Second)
			s.Disconnect() // Every stream breaks once in a while.
		}
		if l.Err() != nil || !l.Deadline().After(time.Now().Add(2*time.Second)) {
			t.Errorf("err %v, %v left", l.Err(), time.Until(l.Deadline()))
		}
		if n := s.Calls("Renew"); n > 45 {
			t.Errorf("%d renewals in 40 s of a 5 s lease", n)
		}
		if err := l.Revoke(t.Context()); err != nil {
			t.Error(err)
		}
		if !errors.Is(l.Err(), context.Canceled) {
			t.Errorf("after Revoke: %v", l.Err())
		}
	})
}

func TestLeaseIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		ctx, die := context.WithCancel(t.Context())
		first, err := client.KeepLease(ctx, c, 6*time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		die()
		after(t, 5*time.Second)
		l, err := client.AdoptLease(t.Context(), c, first.ID(), func(err error) { t.Errorf("lost: %v", err) })
		if err != nil {
			t.Fatal(err)
		}
		after(t, 20*time.Second)
		if l.ID() != first.ID() || l.TTL() != 6*time.Second || l.Err() != nil {
			t.Errorf("lease %d of %v: %v", l.ID(), l.TTL(), l.Err())
		}
		if err := l.Revoke(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := client.AdoptLease(t.Context(), c, first.ID(), nil); !errors.Is(err, client.ErrLeaseLost) {
			t.Errorf("a lease that is gone: %v", err)
		}
		s.Disconnect()
	})
}

func TestLeaseIsLostWhenNoServerAnswers(t *testing.T) {
	for name, answer := range map[string]func(blocked chan struct{}) error{
		"refusing": func(chan struct{}) error { return status.Error(codes.Unavailable, "no") },
		"hanging":  func(blocked chan struct{}) error { <-blocked; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := clienttest.Start(t)
				blocked := make(chan struct{})
				defer close(blocked)
				s.Intercept(func(method string, _ proto.Message) error {
					if method == "Renew" {
						return answer(blocked)
					}
					return nil
				})
				begun := time.Now()
				lost := make(chan time.Duration, 1)
				l, err := client.KeepLease(t.Context(), c, 5*time.Second, func(error) { lost <- time.Since(begun) })
				if err != nil {
					t.Fatal(err)
				}
				if d := <-lost; d < 4900*time.Millisecond || d > 5*time.Second {
					t.Errorf("lost after %v, want 5s and not more", d)
				}
				if !errors.Is(l.Err(), client.ErrLeaseLost) {
					t.Errorf("Err = %v", l.Err())
				}
				if n := s.Calls("Renew"); n < 3 {
					t.Errorf("%d attempts within the time to live", n)
				}
			})
		})
	}
}

// TestSlowRenewalsKeepTheLease has every answer take longer than an answer is waited for at first.
func TestSlowRenewalsKeepTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		s.Intercept(func(method string, _ proto.Message) error {
			if method == "Renew" {
				<-time.After(1500 * time.Millisecond)
			}
			return nil
		})
		l, err := client.KeepLease(t.Context(), c, 5*time.Second, func(err error) { t.Errorf("lost: %v", err) })
		if err != nil {
			t.Fatal(err)
		}
		after(t, time.Minute)
		if l.Err() != nil {
			t.Errorf("the lease is lost: %v", l.Err())
		}
		if n, streams := s.Calls("Renew"), s.Calls("KeepAlive"); n > 40 || streams > 4 {
			t.Errorf("%d renewals over %d streams in a minute", n, streams)
		}
		if err := l.Revoke(t.Context()); err != nil {
			t.Error(err)
		}
		after(t, 2*time.Second) // what is under way at the server
	})
}

// TestGrantIsRepeatedUnderItsID has the answers to grants be lost, or come too late.
func TestGrantIsRepeatedUnderItsID(t *testing.T) {
	for name, lost := range map[string]func() error{
		"lost":       func() error { return status.Error(codes.Unavailable, "connection lost") },
		"late":       func() error { <-time.After(4 * time.Second); return nil },
		"overloaded": func() error { return apierr.Overloaded(time.Second, "busy") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := clienttest.Start(t)
				ids := map[int64]int{}
				var mu sync.Mutex
				s.Intercept(func(method string, req proto.Message) error {
					if method != "Grant" {
						return nil
					}
					mu.Lock()
					ids[req.(*apiv1.GrantRequest).GetLeaseId()]++
					n := s.Calls("Grant")
					mu.Unlock()
					if n <= 2 {
						return lost()
					}
					return nil
				})
				l, err := client.KeepLease(t.Context(), c, 5*time.Second, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Revoke(t.Context()); err != nil {
					t.Error(err)
				}
				after(t, 5*time.Second) // what is under way at the server
				mu.Lock()
				defer mu.Unlock()
				if len(ids) != 1 || ids[l.ID()] < 2 || ids[l.ID()] > 3 || l.ID() <= 0 {
					t.Errorf("the ids asked for are %v, and %d was granted", ids, l.ID())
				}
			})
		})
	}
}

func TestRefusedGrantIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		s.Intercept(func(method string, _ proto.Message) error { return apierr.Denied("no") })
		if _, err := client.KeepLease(t.Context(), c, 5*time.Second, nil); !apierr.IsForbidden(err) {
			t.Errorf("the error is %v", err)
		}
		if n := s.Calls("Grant"); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestLeaseIsLostWhenServerForgetsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		begun := time.Now()
		lost := make(chan error, 1)
		l, err := client.KeepLease(t.Context(), c, 6*time.Second, func(err error) { lost <- err })
		if err != nil {
			t.Fatal(err)
		}
		s.EndLease(l.ID())
		if err := <-lost; !errors.Is(err, client.ErrLeaseLost) || !apierr.IsNotFound(err) {
			t.Errorf("lost: %v", err)
		}
		if d := time.Since(begun); d > 2100*time.Millisecond {
			t.Errorf("noticed after %v, want at the first renewal", d)
		}
		if err := l.Revoke(t.Context()); err != nil {
			t.Errorf("revoking what is gone: %v", err)
		}
	})
}

func TestObjectVanishesWithLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := clienttest.Start(t)
		ctx, stop := context.WithCancel(t.Context())
		l, err := client.KeepLease(ctx, c, 5*time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Create(t.Context(), c, configMap("a", "1"), client.UnderLease(l.ID())); err != nil {
			t.Fatal(err)
		}
		after(t, time.Minute)
		if _, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", "a"); err != nil {
			t.Fatalf("while the lease is kept: %v", err)
		}
		stop()
		after(t, 6*time.Second)
		if _, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", "a"); !apierr.IsNotFound(err) {
			t.Errorf("after the lease lapsed: %v", err)
		}
	})
}
