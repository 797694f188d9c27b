package events

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func pod(name string) *corev1.Pod {
	return &corev1.Pod{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name, Uid: "uid-" + name}}
}

// recording runs a recorder until the test ends.
func recording(t *testing.T) (*clienttest.Server, *client.Client, *Recorder) {
	t.Helper()
	s, c := clienttest.Start(t)
	r := NewRecorder(Config{Client: c, Component: "scheduler", Host: "master-1"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s, c, r
}

func stored(t *testing.T, c *client.Client) []*corev1.Event {
	t.Helper()
	synctest.Wait()
	all, _, err := client.List[*corev1.Event](t.Context(), c, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func droppedFor(t *testing.T, r *Recorder, reason string) float64 {
	t.Helper()
	var m dto.Metric
	if err := r.dropped.WithLabelValues(reason).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func TestEventsAreAggregated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, r := recording(t)
		for range 3 {
			r.Event(pod("a"), Warning, "FailedScheduling", "%d nodes are full", 2)
			<-time.After(time.Minute)
		}
		r.Event(pod("a"), Warning, "FailedScheduling", "%d nodes are full", 3)
		all := stored(t, c)
		if len(all) != 2 {
			t.Fatalf("%d events, want 2", len(all))
		}
		e := all[0]
		if e.Count == 1 {
			e = all[1]
		}
		if e.Count != 3 || e.LastTimestamp.AsTime().Sub(e.FirstTimestamp.AsTime()) != 2*time.Minute {
			t.Errorf("count %d from %v to %v", e.Count, e.FirstTimestamp.AsTime(), e.LastTimestamp.AsTime())
		}
		if e.InvolvedObject.Name != "a" || e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.ApiVersion != "v1" ||
			e.Message != "2 nodes are full" || e.Type != Warning || e.Source.Component != "scheduler" ||
			!strings.HasPrefix(e.Metadata.Name, "a.") || e.Metadata.Namespace != "default" {
			t.Errorf("event %v", e)
		}
	})
}

func TestEventsVanish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, r := recording(t)
		begun := time.Now()
		for time.Since(begun) < 50*time.Minute {
			r.Event(pod("a"), Normal, "Pulled", "again")
			<-time.After(3 * time.Minute)
		}
		if n := len(stored(t, c)); n < 3 || n > 4 {
			t.Errorf("%d events after 50 minutes, want one per 20 minutes", n)
		}
		<-time.After(25 * time.Minute)
		if n := len(stored(t, c)); n == 0 {
			t.Error("the last event vanished within 30 minutes")
		}
		<-time.After(lifetime)
		if all := stored(t, c); len(all) != 0 {
			t.Errorf("%d events live for ever", len(all))
		}
	})
}

func TestEventsGoOnAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, r := recording(t)
		r.Event(pod("a"), Normal, "Pulled", "again")
		synctest.Wait()
		r.known = map[string]*series{} // As a new process would.
		r.Event(pod("a"), Normal, "Pulled", "again")
		if all := stored(t, c); len(all) != 1 || all[0].Count != 2 {
			t.Errorf("%v", all)
		}
	})
}

func TestEventsAreLimitedPerObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, r := recording(t)
		for n := range 100 {
			r.Event(pod("noisy"), Warning, "Unhealthy", "attempt %d", n)
		}
		r.Event(pod("quiet"), Normal, "Started", "fine")
		if n := len(stored(t, c)); n != burst+1 {
			t.Errorf("%d events, want %d and one", n, burst)
		}
		if n := droppedFor(t, r, "limited"); n != 100-burst {
			t.Errorf("%v dropped", n)
		}
	})
}

func TestEventsNeverBlock(t *testing.T) {
	r := NewRecorder(Config{Component: "scheduler"})
	for n := range queueLength + 10 {
		r.Event(pod(fmt.Sprint(n)), Normal, "Started", "fine")
	}
	if n := droppedFor(t, r, "full"); n != 10 {
		t.Errorf("%v dropped, want 10", n)
	}
}

func TestEventsSurviveAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, r := recording(t)
		r.cfg.Client = clienttest.Unrepeated(t, s)
		s.Intercept(func(string, proto.Message) error { return status.Error(codes.Unavailable, "no") })
		r.Event(pod("a"), Normal, "Started", "%s", strings.Repeat("é", maxMessage))
		synctest.Wait()
		s.Intercept(nil)
		<-time.After(5 * time.Second)
		all := stored(t, c)
		if len(all) != 1 || len(all[0].Message) > maxMessage {
			t.Fatalf("%d events", len(all))
		}
	})
}

func TestEventsAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, r := recording(t)
		record := func(n int) {
			for i := range n {
				r.Event(pod(fmt.Sprint("p-", i)), Normal, "Scheduled", "fine")
			}
		}
		// The first call takes long, so that the others wait behind it.
		s.Intercept(func(method string, _ proto.Message) error {
			<-time.After(time.Second)
			return nil
		})
		record(1)
		synctest.Wait()
		record(3 * together)
		<-time.After(time.Minute)
		s.Intercept(nil)
		if n := len(stored(t, c)); n != 3*together {
			t.Errorf("%d events, want %d", n, 3*together)
		}
		if creates, transacts := s.Calls("Create"), s.Calls("Transact"); creates > 1 || transacts > 4 {
			t.Errorf("%d creates and %d transactions", creates, transacts)
		}
		for _, e := range stored(t, c) {
			want := int32(1)
			if e.GetInvolvedObject().GetName() == "p-0" {
				want = 2
			}
			if e.GetCount() != want {
				t.Errorf("event of %s has count %d, want %d", e.GetInvolvedObject().GetName(), e.GetCount(), want)
			}
		}
	})
}

func TestOneEventThatExistsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, r := recording(t)
		r.Event(pod("b"), Normal, "Scheduled", "fine")
		synctest.Wait()
		again := NewRecorder(r.cfg) // knows nothing of it, as after a restart
		for _, name := range []string{"a", "b", "c"} {
			again.Event(pod(name), Normal, "Scheduled", "fine")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = again.Run(ctx)
		}()
		all := stored(t, c)
		cancel()
		<-done
		if len(all) != 3 || all[1].GetCount() != 2 {
			t.Errorf("%d events, that which existed with count %d", len(all), all[1].GetCount())
		}
	})
}
