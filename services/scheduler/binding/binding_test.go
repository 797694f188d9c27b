package binding

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePlugin binds pods as bind says, and keeps what it was called with.
type fakePlugin struct {
	bind func(ctx context.Context, names []string) error
	// bound is the answer about each pod.
	bound bool

	mu    sync.Mutex
	calls [][]string
}

func (f *fakePlugin) Bind(ctx context.Context, batch []framework.Assignment) error {
	var names []string
	for _, a := range batch {
		names = append(names, a.Pod.Name)
	}
	f.mu.Lock()
	f.calls = append(f.calls, names)
	f.mu.Unlock()
	return f.bind(ctx, names)
}

func (f *fakePlugin) IsBound(context.Context, framework.Assignment) (bool, error) {
	return f.bound, nil
}

// outcomes collects what done was called with, by pod.
type outcomes struct {
	mu sync.Mutex
	of map[string][]error
}

func (o *outcomes) done(a framework.Assignment, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = map[string][]error{}
	}
	o.of[a.Pod.Name] = append(o.of[a.Pod.Name], err)
}

func batch(n int) []framework.Assignment {
	all := make([]framework.Assignment, n)
	for i := range all {
		all[i] = framework.Assignment{Pod: &framework.Pod{Name: fmt.Sprint("p", i)}, Node: "n"}
	}
	return all
}

func notFound(name string) error {
	k := kinds.Of(new(corev1.Pod))
	return apierr.NotFound(k, name)
}

func TestBatchIsBoundInOneCall(t *testing.T) {
	f := &fakePlugin{bind: func(context.Context, []string) error { return nil }}
	b, o := New(f, zap.NewNop()), &outcomes{}
	b.Bind(t.Context(), batch(100), o.done)
	b.Wait()
	if len(f.calls) != 1 || len(o.of) != 100 {
		t.Errorf("%d calls, %d outcomes; want 1 and 100", len(f.calls), len(o.of))
	}
}

func TestRefusedBatchIsHalved(t *testing.T) {
	refused := []string{"p3", "p9"}
	f := &fakePlugin{bind: func(_ context.Context, names []string) error {
		for _, name := range names {
			if slices.Contains(refused, name) {
				return notFound(name)
			}
		}
		return nil
	}}
	b, o := New(f, zap.NewNop()), &outcomes{}
	b.Bind(t.Context(), batch(16), o.done)
	b.Wait()
	for i := range 16 {
		name := fmt.Sprint("p", i)
		got := o.of[name]
		if want := slices.Contains(refused, name); len(got) != 1 || apierr.IsNotFound(got[0]) != want || !want && got[0] != nil {
			t.Errorf("%s: outcomes %v", name, got)
		}
	}
	// A binary search for each of the two, instead of a call for each of the 16.
	if len(f.calls) > 15 {
		t.Errorf("%d calls", len(f.calls))
	}
}

func TestUnknownOutcomeIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 5
		f := &fakePlugin{bind: func(context.Context, []string) error {
			if failures > 0 {
				failures--
				return apierr.Unavailable("connection lost")
			}
			return nil
		}}
		b, o := New(f, zap.NewNop()), &outcomes{}
		b.Bind(t.Context(), batch(3), o.done)
		b.Wait()
		for name, got := range o.of {
			if len(got) != 1 || got[0] != nil {
				t.Errorf("%s: outcomes %v", name, got)
			}
		}
		if len(f.calls) != 6 || len(o.of) != 3 {
			t.Errorf("%d calls, %d outcomes; want 6 and 3", len(f.calls), len(o.of))
		}
		for _, names := range f.calls {
			if len(names) != 3 {
				t.Errorf("a batch of unknown outcome was split: %v", names)
			}
		}
	})
}

func TestBatchesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &fakePlugin{bind: func(context.Context, []string) error { <-release; return nil }}
		b, o := New(f, zap.NewNop()), &outcomes{}
		started := 0
		go func() {
			for range MaxBatches + 1 {
				b.Bind(t.Context(), batch(1), o.done)
				started++
			}
		}()
		synctest.Wait()
		if started != MaxBatches || len(f.calls) != MaxBatches {
			t.Errorf("%d batches started, want %d", started, MaxBatches)
		}
		close(release)
		synctest.Wait()
		b.Wait()
		if got := len(o.of["p0"]); started != MaxBatches+1 || got != MaxBatches+1 {
			t.Errorf("%d batches started and %d ended, want %d", started, got, MaxBatches+1)
		}
	})
}

// TestEndOfTerm ends a term of leadership in three ways: no outcome is reported that the next
// leader decides.
func TestEndOfTerm(t *testing.T) {
	for name, fail := range map[string]func(ctx context.Context) error{
		"election lost":         func(context.Context) error { return apierr.ElectionLost("kube-system/scheduler") },
		"stopped in a call":     func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"stopped in a back-off": func(context.Context) error { return apierr.Overloaded(time.Minute, "busy") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				f := &fakePlugin{bind: func(ctx context.Context, _ []string) error { return fail(ctx) }}
				b, o := New(f, zap.NewNop()), &outcomes{}
				b.Bind(ctx, batch(2), o.done)
				synctest.Wait()
				cancel()
				b.Wait()
				b.Bind(ctx, batch(2), o.done)
				b.Wait()
				if len(o.of) != 0 {
					t.Errorf("outcomes: %v", o.of)
				}
				if len(f.calls) > 2 || len(f.calls[0]) != 2 {
					t.Errorf("calls: %v", f.calls)
				}
			})
		})
	}
}

// TestWholeBatches are bound together or not at all: no part of one is tried.
func TestWholeBatches(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []error
		bound   bool // when the pods are asked about
		fails   bool
	}{
		{name: "bound", answers: []error{nil}},
		{name: "a pod was deleted", answers: []error{notFound("p1")}, fails: true},
		{name: "the answer was lost", answers: []error{apierr.Unavailable("lost"), apierr.Conflict(kinds.Of(new(corev1.Pod)), "p0", "is bound")}, bound: true},
		{name: "another scheduler bound a pod", answers: []error{apierr.Conflict(kinds.Of(new(corev1.Pod)), "p0", "is bound")}, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				f := &fakePlugin{bound: tt.bound, bind: func(context.Context, []string) error {
					calls++
					return tt.answers[calls-1]
				}}
				b := New(f, zap.NewNop())
				var outcomes []error
				b.BindWhole(t.Context(), batch(3), func(err error) { outcomes = append(outcomes, err) })
				b.Wait()
				if len(outcomes) != 1 || (outcomes[0] != nil) != tt.fails {
					t.Errorf("outcomes are %v", outcomes)
				}
				for _, names := range f.calls {
					if len(names) != 3 {
						t.Errorf("bound %v alone", names)
					}
				}
			})
		})
	}
}
