package datapath

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// fakeDatapath holds in memory what the kernel would.
type fakeDatapath struct {
	mu       sync.Mutex
	held     map[Frontend]Service
	replaced int
	updated  int
	verified int
	severed  int
	answers  []netip.Addr // for these addresses
	renewals int
	fail     error
}

func (f *fakeDatapath) Announce(addrs []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = addrs
	f.renewals++
	return nil
}

func (f *fakeDatapath) Renew() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renewals++
	return nil
}

func (f *fakeDatapath) announced() (string, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(f.answers), f.renewals
}

func (f *fakeDatapath) Replace(wanted []Service) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replaced++
	if f.fail != nil {
		return f.fail
	}
	f.held = make(map[Frontend]Service)
	for _, s := range wanted {
		f.held[s.Frontend] = s
	}
	return nil
}

func (f *fakeDatapath) Update(c Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updated++
	if f.fail != nil {
		return f.fail
	}
	for _, s := range c.Put {
		f.held[s.Frontend] = s
	}
	for _, d := range c.Delete {
		delete(f.held, d)
	}
	return nil
}

func (f *fakeDatapath) Verify() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verified++
	return nil
}

func (f *fakeDatapath) Sever() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.severed++
	return 0, f.fail
}

func (f *fakeDatapath) verifications() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.verified
}

func (f *fakeDatapath) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *fakeDatapath) Dump() ([]Service, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.held)), f.fail
}

func runSyncer(t *testing.T, f *fakeDatapath, test func(*testing.T, *Syncer)) {
	synctest.Test(t, func(t *testing.T) {
		s := newSyncer("me", f, NewMetrics(nil), zaptest.NewLogger(t))
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- s.Run(ctx) }()
		test(t, s)
		stop()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestSyncer(t *testing.T) {
	old := Service{Name: "left by an earlier agent"}
	f := &fakeDatapath{held: map[Frontend]Service{old.Frontend: old}}
	runSyncer(t, f, func(t *testing.T, s *Syncer) {
		a, b := newService("a", spec("10.96.0.1")), newService("b", spec("10.96.0.2"))
		s.OnService(nil, a)
		synctest.Wait()
		if f.replaced+f.updated != 0 {
			t.Fatal("written before all was known")
		}
		s.OnEndpointSlice(nil, newSlice("s", "a", 80, "10.244.0.5 rs"))
		s.Synced()
		synctest.Wait()
		if got := describe(slices.Collect(maps.Values(f.held))); got != "ns/a:http 10.96.0.1:80/TCP -> [10.244.0.5:80]" {
			t.Errorf("after the first sync:\n%s", got)
		}
		s.OnService(nil, b)
		s.OnService(a, nil)
		synctest.Wait()
		if got := describe(slices.Collect(maps.Values(f.held))); got != "ns/b:http 10.96.0.2:80/TCP -> []" {
			t.Errorf("after changes:\n%s", got)
		}
		if f.replaced != 1 {
			t.Errorf("everything was written %d times", f.replaced)
		}
	})
}

// A revision is reported once the maps have its changes, and not before.
func TestSyncerReportsTheProgrammedRevision(t *testing.T) {
	f := &fakeDatapath{held: map[Frontend]Service{}}
	synctest.Test(t, func(t *testing.T) {
		s := newSyncer("me", f, NewMetrics(nil), zaptest.NewLogger(t))
		var reported []int64
		s.OnProgrammed(func(revision int64) { reported = append(reported, revision) })
		expect := func(what string, want ...int64) {
			t.Helper()
			synctest.Wait()
			if got := slices.Compact(slices.Clone(reported)); !slices.Equal(got, want) {
				t.Errorf("%s: reported %v, want %v", what, got, want)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- s.Run(ctx) }()
		s.OnService(nil, newService("a", spec("10.96.0.1")))
		s.Reached(7)
		expect("before all is known")
		s.Synced()
		expect("the first write", 7)
		s.Reached(8)
		expect("a revision that changes nothing here", 7, 8)
		f.failWith(errors.New("no space"))
		s.OnEndpointSlice(nil, newSlice("s", "a", 80, "10.244.0.5 rs"))
		s.Reached(9)
		expect("a write that fails", 7, 8)
		f.failWith(nil)
		wait(t.Context(), maxRetry)
		expect("a write that succeeds after all", 7, 8, 9)
		stop()
		<-ran
	})
}

// Connected sockets are looked through when a UDP service changes, and after everything was
// compared.
func TestSyncerSevers(t *testing.T) {
	f := &fakeDatapath{held: map[Frontend]Service{}}
	runSyncer(t, f, func(t *testing.T, s *Syncer) {
		udp := newService("u", spec("10.96.0.2", func(s *corev1.ServiceSpec) { s.Ports[0].Protocol = "UDP" }))
		for _, step := range []struct {
			what string
			do   func()
			want int
		}{
			{"the first write", s.Synced, 1},
			{"a TCP service", func() { s.OnService(nil, newService("t", spec("10.96.0.1"))) }, 1},
			{"a UDP service", func() { s.OnService(nil, udp) }, 2},
			{"its end", func() { s.OnService(udp, nil) }, 3},
		} {
			step.do()
			synctest.Wait()
			if f.severed != step.want {
				t.Errorf("%s: sockets were looked through %d times, want %d", step.what, f.severed, step.want)
			}
		}
	})
}

// What could not be written is written later, all of it.
func TestSyncerRetries(t *testing.T) {
	f := &fakeDatapath{held: map[Frontend]Service{}, fail: errors.New("no space")}
	runSyncer(t, f, func(t *testing.T, s *Syncer) {
		s.Synced()
		s.OnService(nil, newService("a", spec("10.96.0.1")))
		synctest.Wait()
		f.failWith(nil)
		wait(t.Context(), maxRetry)
		synctest.Wait()
		f.failWith(errors.New("no space again"))
		s.OnService(nil, newService("b", spec("10.96.0.2")))
		synctest.Wait()
		f.failWith(nil)
		wait(t.Context(), maxRetry)
		synctest.Wait()
		if held, _ := f.Dump(); len(held) != 2 {
			t.Errorf("held is %v", held)
		}
		wait(t.Context(), 2*verifyEvery)
		synctest.Wait()
		if f.verifications() == 0 {
			t.Error("the maps were never verified")
		}
	})
}

func TestEntries(t *testing.T) {
	stray := Service{Frontend: Frontend{Protocol: UDP}}
	f := &fakeDatapath{held: map[Frontend]Service{stray.Frontend: stray}}
	s := newSyncer("me", f, NewMetrics(nil), zaptest.NewLogger(t))
	var svc *corev1.Service
	s.OnService(svc, newService("a", spec("10.96.0.1")))
	s.table.Flush()
	got, err := s.Entries()
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	if got[0].Service != "" || !got[0].Programmed || got[1].Service != "ns/a:http" || got[1].Programmed {
		t.Errorf("%+v", got)
	}
}

func TestSyncerMetrics(t *testing.T) {
	f := &fakeDatapath{held: map[Frontend]Service{}, fail: errors.New("no space")}
	runSyncer(t, f, func(t *testing.T, s *Syncer) {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(s.metrics.writes, s.metrics.delay)
		expect := func(what string, writes map[string]float64, delays float64) {
			t.Helper()
			if got := metricstest.Values(t, registry, metrics.DatapathWrites); !maps.Equal(got, writes) {
				t.Errorf("%s: writes are %v, want %v", what, got, writes)
			}
			if got := metricstest.Values(t, registry, metrics.DatapathDelaySeconds)[""]; got != delays {
				t.Errorf("%s: %v delays, want %v", what, got, delays)
			}
		}
		s.OnService(nil, newService("a", spec("10.96.0.1")))
		wait(t.Context(), time.Second)
		s.Synced()
		synctest.Wait()
		expect("a write that fails", map[string]float64{"failed": 1}, 0)
		f.failWith(nil)
		wait(t.Context(), maxRetry)
		synctest.Wait()
		s.OnService(nil, newService("b", spec("10.96.0.2")))
		synctest.Wait()
		expect("a retry and a change", map[string]float64{"failed": 1, "ok": 2}, 2)
		s.OnService(nil, newService("b", spec("10.96.0.2")))
		synctest.Wait()
		expect("no change", map[string]float64{"failed": 1, "ok": 2}, 2)
	})
}
