package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// busy answers the first calls of a method that the server is overloaded and asks for a pause of a
// minute. It returns when each call of the method came, from the start.
func busy(s *clienttest.Server, method string, times int) *[]time.Duration {
	began, calls := time.Now(), &[]time.Duration{}
	s.Intercept(func(m string, _ proto.Message) error {
		if m != method {
			return nil
		}
		if *calls = append(*calls, time.Since(began)); len(*calls) <= times {
			return apierr.Overloaded(time.Minute, "busy")
		}
		return nil
	})
	return calls
}

// paused fails unless all calls but the first came a minute or more after the one before.
func paused(t *testing.T, calls []time.Duration, want int) {
	t.Helper()
	if len(calls) != want {
		t.Errorf("called %d times, at %v, want %d", len(calls), calls, want)
	}
	for i := 1; i < len(calls); i++ {
		if calls[i]-calls[i-1] < time.Minute {
			t.Errorf("called at %v: the server asked for a pause of a minute", calls)
		}
	}
}

func TestHeartbeatHonoursRetryInfo(t *testing.T) {
	for _, method := range []string{"Grant", "Create"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := clienttest.Start(t)
				calls := busy(s, method, 3)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				if err := Heartbeat(ctx, c, "a", 10*time.Second, zap.NewNop()); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("ended with %v", err)
				}
				paused(t, *calls, 4)
				// A lease that could be granted is not given up because its object could not be made.
				if want := map[string]int{"Grant": 4, "Create": 1}[method]; s.Calls("Grant") != want {
					t.Errorf("asked for %d leases, want %d", s.Calls("Grant"), want)
				}
			})
		})
	}
}

// endLeases ends the leases that the objects stand under.
func endLeases(t *testing.T, s *clienttest.Server, objects []*coordinationv1.Lease) {
	t.Helper()
	for _, object := range objects {
		id, err := strconv.ParseInt(object.GetMetadata().GetAnnotations()[annotationLease], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s.EndLease(id)
	}
}

// TestHeartbeatsReturnSpread loses the leases of many nodes at once, as an outage does.
func TestHeartbeatsReturnSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		const nodes = 50
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, nodes)
		for i := range nodes {
			go func() { ended <- Heartbeat(ctx, c, fmt.Sprint("n", i), 10*time.Second, zap.NewNop()) }()
		}
		synctest.Wait()
		lost := time.Now()
		var mu sync.Mutex
		moments := map[time.Duration]bool{}
		s.Intercept(func(method string, _ proto.Message) error {
			mu.Lock()
			defer mu.Unlock()
			if method == "Grant" {
				moments[time.Since(lost)] = true
			}
			return nil
		})
		kept, _, err := client.List[*coordinationv1.Lease](ctx, c, client.ListOptions{})
		if err != nil || len(kept) != nodes {
			t.Fatalf("%d leases: %v", len(kept), err)
		}
		endLeases(t, s, kept)
		// They find out at their next renewals, a third into the time to live.
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if leases, _, err := client.List[*coordinationv1.Lease](ctx, c, client.ListOptions{}); err != nil || len(leases) != nodes {
			t.Errorf("%d of %d nodes have their lease again, %v", len(leases), nodes, err)
		}
		if len(moments) < nodes*9/10 {
			t.Errorf("%d nodes asked for new leases at %d moments", nodes, len(moments))
		}
		cancel()
		for range nodes {
			<-ended
		}
	})
}

// TestHeartbeatAfterLostResponse lets the creation of the object succeed and its answer be lost.
func TestHeartbeatAfterLostResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		inner := client.New(clienttest.Serve(t, s))
		creates := 0
		s.Intercept(func(method string, req proto.Message) error {
			if create, ok := req.(*apiv1.CreateRequest); ok && method == "Create" {
				if creates++; creates == 1 {
					if _, err := inner.Resources().Create(t.Context(), create); err != nil {
						t.Error(err)
					}
					return status.Error(codes.Unavailable, "lost")
				}
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := Heartbeat(ctx, c, "a", 10*time.Second, zap.NewNop()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		if grants, deletes := s.Calls("Grant"), s.Calls("Delete"); grants != 1 || deletes != 0 {
			t.Errorf("asked for %d leases and deleted the object %d times, want the object that is there to stay", grants, deletes)
		}
	})
}

func TestRegistrarHonoursRetryInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		calls := busy(s, "Create", 3)
		r := &registrar{
			cfg: &Config{Node: "a", Address: "192.0.2.1", StateDir: t.TempDir(), MaxPods: 10}, client: c, log: zap.NewNop(),
			machine: machine{info: &corev1.NodeSystemInfo{}}, wake: make(chan struct{}, 1),
			images:        func(context.Context) ([]*corev1.ContainerImage, error) { return nil, nil },
			runtime:       func(context.Context) (string, error) { return "2", nil },
			readOnlyBelow: func() bool { return true },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				r.setNotReady("news")
				time.Sleep(time.Second)
				r.setNotReady("")
			}
		}()
		if err := r.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		<-ended
		paused(t, *calls, 4)
		if _, err := client.Get[*corev1.Node](t.Context(), c, "", "a"); err != nil {
			t.Error(err)
		}
	})
}

// TestRepeatedLeaseLoss are taken after ever longer pauses, until one is kept for a while.
func TestRepeatedLeaseLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Heartbeat(ctx, c, "n", 10*time.Second, zap.NewNop()) }()
		lose := func() {
			leases, _, err := client.List[*coordinationv1.Lease](ctx, c, client.ListOptions{})
			if err != nil || len(leases) > 1 {
				t.Fatalf("%d leases: %v", len(leases), err)
			}
			endLeases(t, s, leases)
		}
		// A control plane that keeps no lease for longer than 5 s.
		began := s.Calls("Grant")
		for range 10 * 12 {
			time.Sleep(5 * time.Second)
			lose()
		}
		// A new lease is taken at the renewal after a loss, after 5 s or so: without ever longer pauses
		// 100 times and more.
		if n := s.Calls("Grant") - began; n < 10 || n > 60 {
			t.Errorf("%d leases in ten minutes", n)
		}
		time.Sleep(3 * heartbeatKept)
		lose()
		before := s.Calls("Grant")
		time.Sleep(10*time.Second/3 + time.Second)
		if n := s.Calls("Grant") - before; n != 1 {
			t.Errorf("%d leases after the first loss in a while, want 1 soon", n)
		}
		cancel()
		<-ended
	})
}
