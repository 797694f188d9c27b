package disruption

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// runFor runs the controllers over objects for some time, which is faked.
func runFor(t *testing.T, c *client.Client, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	term := controller.NewTerm(ctx, c, nil, controller.NewMetrics(nil))
	Add(term, Config{
		Events: events.NewRecorder(events.Config{Client: c}),
		Pods: controller.Informer(term, client.InformerOptions[*corev1.Pod]{
			Indexers: Indexed(controller.ByController[*corev1.Pod]()),
		}),
		ReplicaSets: controller.Informer(term, client.InformerOptions[*appsv1.ReplicaSet]{}),
	})
	var work sync.WaitGroup
	work.Go(func() { _ = term.Run() })
	<-time.After(d)
	cancel()
	work.Wait()
}

func web() *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:     &policyv1.PodDisruptionBudgetSpec{MinAvailable: object.Text("50%"), Selector: &metav1.LabelSelector{}},
	}
}

// TestStaleConditionsAreReset has a pod that was about to be deleted, and one that its agent ends.
func TestStaleConditionsAreReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, c := clienttest.Start(t)
		for name, reason := range map[string]string{"stale": core.DeletionByTaintManager, "ends": core.TerminationByKubelet} {
			p := newPod(name + " -")
			core.SetDisruptionTarget(p, reason, "why", time.Now())
			clienttest.Seed(server, p)
		}
		runFor(t, c, 119*time.Second)
		status := func(name string) string {
			p, err := client.Get[*corev1.Pod](t.Context(), c, "default", name)
			if err != nil {
				t.Fatal(err)
			}
			return core.PodCondition(p, core.PodDisruptionTarget).GetStatus()
		}
		if status("stale") != condition.True {
			t.Error("the condition was reset too early")
		}
		runFor(t, c, 2*time.Second)
		if got := status("stale") + " " + status("ends"); got != "False True" {
			t.Errorf("the conditions are %s, want False True", got)
		}
	})
}

// TestOwnersOfPodsAreFoundLater has a pod whose owner is not known yet: the budget allows nothing
// until it is.
func TestOwnersOfPodsAreFoundLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, c := clienttest.Start(t)
		b := web()
		b.Status = &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 5}
		clienttest.Seed(server, b)
		clienttest.Seed(server, newPod("a set ready"))
		get := func() *policyv1.PodDisruptionBudgetStatus {
			b, err := client.Get[*policyv1.PodDisruptionBudget](t.Context(), c, "default", "web")
			if err != nil {
				t.Fatal(err)
			}
			return b.GetStatus()
		}
		runFor(t, c, time.Second)
		if got := get().GetConditions()[0]; get().GetDisruptionsAllowed() != 0 || got.GetReason() != "SyncFailed" ||
			!strings.Contains(got.GetMessage(), `found no controllers for pod "a"`) {
			t.Errorf("without the owner the status is %v", get())
		}
		set := clienttest.Seed(server, &appsv1.ReplicaSet{
			Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "set"}, Spec: &appsv1.ReplicaSetSpec{Replicas: proto.Int32(1)},
		})[0]
		p := newPod("a set ready")
		p.Metadata.OwnerReferences[0].Uid = set.GetMetadata().GetUid()
		clienttest.Seed(server, p)
		runFor(t, c, retryFailed+time.Second)
		if s := get(); s.GetExpectedPods() != 1 || s.GetCurrentHealthy() != 1 || s.GetDesiredHealthy() != 1 || s.GetConditions()[0].GetReason() != "InsufficientPods" {
			t.Errorf("with the owner the status is %v", s)
		}
	})
}

// TestEvictedPodsCountAgain has an eviction that no deletion followed.
func TestEvictedPodsCountAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, c := clienttest.Start(t)
		b := web()
		b.Spec.MinAvailable = object.Count(1)
		b.Status = &policyv1.PodDisruptionBudgetStatus{DisruptedPods: map[string]*timestamppb.Timestamp{"a": timestamppb.Now()}}
		clienttest.Seed(server, b)
		p := newPod("a - ready")
		p.Metadata.CreationTimestamp = timestamppb.New(time.Now().Add(-time.Hour))
		clienttest.Seed(server, p, newPod("b - ready"))
		runFor(t, c, deletionTimeout-time.Second)
		allowed := func() int32 {
			b, err := client.Get[*policyv1.PodDisruptionBudget](t.Context(), c, "default", "web")
			if err != nil {
				t.Fatal(err)
			}
			return b.GetStatus().GetDisruptionsAllowed()
		}
		if n := allowed(); n != 0 {
			t.Errorf("the budget allows %d disruptions, want 0", n)
		}
		runFor(t, c, 2*time.Second)
		if n := allowed(); n != 1 {
			t.Errorf("after two minutes the budget allows %d disruptions, want 1", n)
		}
	})
}
