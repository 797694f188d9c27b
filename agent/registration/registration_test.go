package registration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
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
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
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
				s, _ := clienttest.Start(t)
				calls := busy(s, method, 3)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				if err := lease(clienttest.Unrepeated(t, s), "a").Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
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

// lease is the lease of a node without a file.
func lease(c *client.Client, node string) Lease {
	return Lease{Client: c, Node: node, TTL: 10 * time.Second, Log: zap.NewNop()}
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
			go func() { ended <- lease(c, fmt.Sprint("n", i)).Run(ctx) }()
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
		if err := lease(c, "a").Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		if grants, deletes := s.Calls("Grant"), s.Calls("Delete"); grants != 1 || deletes != 0 {
			t.Errorf("asked for %d leases and deleted the object %d times, want the object that is there to stay", grants, deletes)
		}
	})
}

func TestNodeHonoursRetryInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		calls := busy(s, "Create", 3)
		wake := make(chan struct{}, 1)
		n := Node{
			Client: clienttest.Unrepeated(t, s), Log: zap.NewNop(), Wake: wake,
			Metadata: func() *metav1.ObjectMeta { return &metav1.ObjectMeta{Name: "a"} },
			Status:   func(_ context.Context, stored *corev1.NodeStatus, _ time.Time) *corev1.NodeStatus { return stored },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				select {
				case wake <- struct{}{}:
				default:
				}
				time.Sleep(time.Second)
			}
		}()
		if err := n.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		<-ended
		paused(t, *calls, 4)
		if _, err := client.Get[*corev1.Node](t.Context(), c, "", "a"); err != nil {
			t.Error(err)
		}
	})
}

// TestRepeatedLeaseLoss acquires lost leases after ever longer pauses, until one is stable.
func TestRepeatedLeaseLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- lease(c, "n").Run(ctx) }()
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
		time.Sleep(3 * leaseStable)
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

// TestSync restores missing labels and the status, and writes an unchanged status as a heartbeat
// only.
func TestSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		ready := &corev1.NodeCondition{Type: "Ready", Status: "True"}
		wake := make(chan struct{}, 1)
		n := Node{
			Client: c, Log: zap.NewNop(), Wake: wake,
			Metadata: func() *metav1.ObjectMeta {
				return &metav1.ObjectMeta{Name: "a", Labels: map[string]string{"zone": "z"}}
			},
			Status: func(_ context.Context, stored *corev1.NodeStatus, now time.Time) *corev1.NodeStatus {
				st := proto.CloneOf(stored)
				if st == nil {
					st = &corev1.NodeStatus{}
				}
				SetCondition(st, proto.CloneOf(ready), now)
				return st
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		synctest.Wait()
		node, err := client.Get[*corev1.Node](ctx, c, "", "a")
		if err != nil || node.Metadata.Labels["zone"] != "z" || node.Status.Conditions[0].GetStatus() != "True" {
			t.Fatalf("registered as %v, %v", node, err)
		}
		transition := node.Status.Conditions[0].GetLastTransitionTime().AsTime()

		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := s.Calls("UpdateStatus"); n != 0 {
			t.Errorf("an unchanged status was written %d times in two minutes", n)
		}
		node.Metadata.Labels = nil
		node.Status.Conditions[0].Status = "Unknown"
		clienttest.Seed(s, node)
		wake <- struct{}{}
		synctest.Wait()
		node, err = client.Get[*corev1.Node](ctx, c, "", "a")
		if err != nil || node.Metadata.Labels["zone"] != "z" || node.Status.Conditions[0].GetStatus() != "True" {
			t.Errorf("after changes by others: %v, %v", node, err)
		}
		if got := node.Status.Conditions[0].GetLastTransitionTime().AsTime(); !got.After(transition) {
			t.Errorf("the transition time is %v, was %v", got, transition)
		}
		transition = node.Status.Conditions[0].GetLastTransitionTime().AsTime()

		time.Sleep(7 * time.Minute)
		synctest.Wait()
		if node, err = client.Get[*corev1.Node](ctx, c, "", "a"); err != nil {
			t.Fatal(err)
		}
		condition := node.Status.Conditions[0]
		if !condition.GetLastTransitionTime().AsTime().Equal(transition) || time.Since(condition.GetLastHeartbeatTime().AsTime()) > 7*time.Minute {
			t.Errorf("after a heartbeat the condition is %v", condition)
		}
		cancel()
		<-ended
	})
}

// TestHeartbeatFollowsAdvice has a server advise a longer time to live: the object moves to another
// lease and exists all the time, the old lease is revoked, and the agent that follows adopts the
// new one. The answer to the first move is lost.
func TestHeartbeatFollowsAdvice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		inner := client.New(clienttest.Serve(t, s))
		lost := false
		s.Intercept(func(method string, req proto.Message) error {
			if update, ok := req.(*apiv1.UpdateRequest); ok && method == "Update" && !lost {
				lost = true
				if _, err := inner.Resources().Update(t.Context(), update); err != nil {
					t.Error(err)
				}
				return status.Error(codes.Unavailable, "lost")
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		h := Lease{Client: c, Node: "n", TTL: 10 * time.Second, Log: zap.NewNop(), File: filepath.Join(t.TempDir(), "lease")}
		go func() { ended <- h.Run(ctx) }()
		time.Sleep(time.Minute)
		get := func() *coordinationv1.Lease {
			object, err := client.Get[*coordinationv1.Lease](ctx, c, leaseNamespace, "n")
			if err != nil {
				t.Fatal(err)
			}
			return object
		}
		before := get()
		s.AdviseTTL(14 * time.Second) // not much longer
		time.Sleep(3 * regrantPause)
		if n := s.Calls("Grant"); n != 1 {
			t.Errorf("%d leases after an advice of 14 s, want the first", n)
		}
		s.AdviseTTL(40 * time.Second)
		for range 3 * regrantPause / time.Second {
			time.Sleep(time.Second)
			get()
		}
		after := get()
		if uid := after.GetMetadata().GetUid(); uid != before.GetMetadata().GetUid() || after.GetSpec().GetLeaseDurationSeconds() != 40 {
			t.Errorf("the object is %v, want %v with 40 s", after, before)
		}
		if grants, revokes := s.Calls("Grant"), s.Calls("Revoke"); grants != 2 || revokes != 1 {
			t.Errorf("%d leases were granted and %d revoked, want 2 and 1", grants, revokes)
		}
		cancel()
		<-ended
		ctx, cancel = context.WithCancel(t.Context())
		go func() { ended <- h.Run(ctx) }()
		time.Sleep(5 * time.Minute)
		get()
		if n := s.Calls("Grant"); n != 2 {
			t.Errorf("%d leases after a restart, want that the second is adopted", n)
		}
		cancel()
		<-ended
	})
}
