package preemption

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name, Uid: name},
		Spec: &corev1.PodSpec{
			SchedulerName: "default-scheduler", NodeName: node, TerminationGracePeriodSeconds: proto.Int64(30),
			Containers: []*corev1.Container{{Name: "c", Image: "i"}},
		},
		Status: &corev1.PodStatus{Phase: "Pending"},
	}
}

func scheduled(t *testing.T, p *corev1.Pod) *framework.Pod {
	t.Helper()
	out, err := framework.NewPod(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// outcome is what done is called with.
type outcome struct {
	deleted bool
	err     error
}

// preempt seeds a waiting pod p with two victims on node n, executes, and returns the outcome.
func preempt(t *testing.T, c *client.Client, s *clienttest.Server, before func()) outcome {
	t.Helper()
	waiting, a, b := pod("p", ""), pod("a", "n"), pod("b", "n")
	clienttest.Seed(s, waiting, a, b)
	task := Task{
		Pod: scheduled(t, waiting), Message: "0/1 nodes are available: 1 Insufficient cpu.", Node: "n",
		Victims: []*framework.Pod{scheduled(t, a), scheduled(t, b)},
	}
	if before != nil {
		before()
	}
	recorder := events.NewRecorder(events.Config{Client: c})
	e := New(c, recorder, zap.NewNop())
	outcomes := make(chan outcome, 1)
	e.Start(t.Context(), task, func(_ Task, deleted bool, err error) { outcomes <- outcome{deleted, err} })
	e.Wait()
	return <-outcomes
}

// leaving returns the names of the pods that are being deleted for another, in their order.
func leaving(t *testing.T, c *client.Client) string {
	t.Helper()
	all, _, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range all {
		cond := core.PodCondition(p, core.PodDisruptionTarget)
		if p.GetMetadata().GetDeletionTimestamp() == nil {
			continue
		}
		if cond.GetStatus() != "True" || cond.GetReason() != "PreemptionByScheduler" {
			t.Errorf("%s is being deleted with condition %v", p.GetMetadata().GetName(), cond)
		}
		names = append(names, p.GetMetadata().GetName())
	}
	return strings.Join(names, " ")
}

// lossy loses the answers to the first writes: they are done, and the caller does not know.
type lossy struct {
	grpc.ClientConnInterface
	mu   sync.Mutex
	lose int
}

func (l *lossy) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := l.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := args.(*apiv1.TransactRequest); ok && err == nil && l.lose > 0 {
		l.lose--
		return apierr.Unavailable("the answer was lost")
	}
	return err
}

func TestVictimsAreDeletedTogether(t *testing.T) {
	for _, lose := range []int{0, 1, 2, 3} {
		synctest.Test(t, func(t *testing.T) {
			s := clienttest.NewServer()
			c := client.New(&lossy{ClientConnInterface: clienttest.Serve(t, s), lose: lose})
			if got := preempt(t, c, s, nil); !got.deleted || got.err != nil {
				t.Errorf("%d answers lost: %+v", lose, got)
			}
			if got := leaving(t, c); got != "a b" {
				t.Errorf("%d answers lost: deleted %q", lose, got)
			}
			p, err := client.Get[*corev1.Pod](t.Context(), c, "default", "p")
			if err != nil || p.GetStatus().GetNominatedNodeName() != "n" ||
				core.PodCondition(p, core.PodScheduled).GetMessage() != "0/1 nodes are available: 1 Insufficient cpu." {
				t.Errorf("%d answers lost: the pod has status %v, %v", lose, p.GetStatus(), err)
			}
			a, err := client.Get[*corev1.Pod](t.Context(), c, "default", "a")
			if err != nil || a.GetMetadata().GetDeletionGracePeriodSeconds() != 30 {
				t.Errorf("%d answers lost: a has %v, %v", lose, a.GetMetadata(), err)
			}
		})
	}
}

// TestNominationWithoutVictims has all victims be on their way already.
func TestNominationWithoutVictims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		waiting := pod("p", "")
		clienttest.Seed(s, waiting)
		e := New(c, events.NewRecorder(events.Config{Client: c}), zap.NewNop())
		e.Start(t.Context(), Task{Pod: scheduled(t, waiting), Message: "m", Node: "n"}, func(_ Task, deleted bool, err error) {
			if !deleted || err != nil {
				t.Errorf("%v, %v", deleted, err)
			}
		})
		e.Wait()
		p, err := client.Get[*corev1.Pod](t.Context(), c, "default", "p")
		if err != nil || p.GetStatus().GetNominatedNodeName() != "n" || core.PodCondition(p, core.PodScheduled).GetMessage() != "m" {
			t.Errorf("status %v, %v", p.GetStatus(), err)
		}
	})
}

// TestNothingIsDeletedInVain has the waiting pod change between the two transactions and before.
func TestNothingIsDeletedInVain(t *testing.T) {
	forbidden := apierr.Unauthenticated("not allowed")
	for _, tt := range []struct {
		name string
		// before happens before the preemption, and between when the victims are marked.
		before, between func(c *client.Client, s *clienttest.Server) error
		leaving         string
		want            outcome
	}{
		{"the pod is bound", bind, nil, "", outcome{}},
		{"the pod is deleted", remove("p"), nil, "", outcome{}},
		{"the pod is bound after the marks", nil, bind, "", outcome{}},
		{"the pod is deleted after the marks", nil, remove("p"), "", outcome{}},
		{"a victim is gone", remove("a"), nil, "b", outcome{true, nil}},
		{"a victim ends after the marks", nil, remove("a"), "b", outcome{true, nil}},
		{"the API refuses", nil, func(*client.Client, *clienttest.Server) error { return forbidden }, "", outcome{false, forbidden}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := clienttest.Start(t)
				got := preempt(t, c, s, func() {
					if tt.before != nil {
						if err := tt.before(c, s); err != nil {
							t.Fatal(err)
						}
					}
					once := tt.between
					s.Intercept(func(_ string, req proto.Message) error {
						tx, ok := req.(*apiv1.TransactRequest)
						if !ok || tx.GetOperations()[0].GetDelete() == nil || once == nil {
							return nil
						}
						do := once
						once = nil
						return do(c, s)
					})
				})
				if got.deleted != tt.want.deleted || !errors.Is(got.err, tt.want.err) && (got.err == nil || tt.want.err == nil) {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
				if got := leaving(t, c); got != tt.leaving {
					t.Errorf("deleted %q, want %q", got, tt.leaving)
				}
			})
		})
	}
}

func remove(name string) func(*client.Client, *clienttest.Server) error {
	return func(_ *client.Client, s *clienttest.Server) error {
		clienttest.Remove(s, pod(name, ""))
		return nil
	}
}

func bind(c *client.Client, _ *clienttest.Server) error {
	_, err := client.Transact(context.Background(), c, client.OpBind("default", "p", "p", "other"))
	return err
}

// TestEndedContext leaves a preemption to the next leader.
func TestEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		waiting := pod("p", "")
		clienttest.Seed(s, waiting)
		s.Intercept(func(string, proto.Message) error { return apierr.Unavailable("no quorum") })
		e := New(c, events.NewRecorder(events.Config{Client: c}), zap.NewNop())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		e.Start(ctx, Task{Pod: scheduled(t, waiting), Node: "n", Victims: []*framework.Pod{scheduled(t, pod("a", "n"))}},
			func(Task, bool, error) { t.Error("the outcome is known") })
		e.Wait()
	})
}
