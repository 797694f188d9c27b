package apiserver

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// makeBudget creates a budget of the pods with the label app=name, with a status.
func makeBudget(t *testing.T, c *client.Client, name string, status *policyv1.PodDisruptionBudgetStatus) *policyv1.PodDisruptionBudget {
	t.Helper()
	b := do[*policyv1.PodDisruptionBudget](t)(client.Create(t.Context(), c, &policyv1.PodDisruptionBudget{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: &policyv1.PodDisruptionBudgetSpec{
			MinAvailable: object.Count(1), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
		},
	}))
	status.ObservedGeneration = b.GetMetadata().GetGeneration()
	b.Status = status
	return do[*policyv1.PodDisruptionBudget](t)(client.UpdateStatus(t.Context(), c, b))
}

// makeBound creates a pod with the label app on a node, with a phase and a Ready condition.
func makeBound(t *testing.T, c *client.Client, app, name, phase, ready string) *corev1.Pod {
	t.Helper()
	p := pod(name)
	p.Metadata.Labels, p.Spec.NodeName = map[string]string{"app": app}, "node-1"
	p = do[*corev1.Pod](t)(client.Create(t.Context(), c, p))
	p.Status = &corev1.PodStatus{Phase: phase, Conditions: []*corev1.PodCondition{{Type: "Ready", Status: ready}}}
	return do[*corev1.Pod](t)(client.UpdateStatus(t.Context(), c, p))
}

func getBudget(t *testing.T, c *client.Client, name string) *policyv1.PodDisruptionBudget {
	t.Helper()
	return do[*policyv1.PodDisruptionBudget](t)(client.Get[*policyv1.PodDisruptionBudget](t.Context(), c, "default", name))
}

// TestEvict evicts a pod: the deletion, the condition and the budget change at one revision.
func TestEvict(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	makeBudget(t, c, "web", &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1, ExpectedPods: 2})
	one, two := makeBound(t, c, "web", "one", "Running", "True"), makeBound(t, c, "web", "two", "Running", "True")

	if _, err := client.Evict(ctx, c, "default", "one", client.DryRun); err != nil {
		t.Fatal(err)
	}
	if n := getBudget(t, c, "web").GetStatus().GetDisruptionsAllowed(); n != 1 {
		t.Errorf("after a dry run the budget allows %d disruptions", n)
	}
	if _, err := client.Evict(ctx, c, "default", "one", client.IfUID("another")); !apierr.IsConflict(err) {
		t.Errorf("another uid: %v", err)
	}
	if _, err := client.Evict(ctx, c, "default", "one", client.IfResourceVersion("1")); !apierr.IsConflict(err) {
		t.Errorf("another resourceVersion: %v", err)
	}
	removed, err := client.Evict(ctx, c, "default", "one", client.IfUID(one.GetMetadata().GetUid()), client.GracePeriod(7))
	if err != nil || removed {
		t.Fatalf("removed %t, %v", removed, err)
	}
	one = do[*corev1.Pod](t)(client.Get[*corev1.Pod](ctx, c, "default", "one"))
	b := getBudget(t, c, "web")
	target := core.PodCondition(one, core.PodDisruptionTarget)
	switch {
	case one.GetMetadata().GetDeletionTimestamp() == nil || one.GetMetadata().GetDeletionGracePeriodSeconds() != 7:
		t.Errorf("the pod is not being deleted: %v", one.GetMetadata())
	case target.GetStatus() != "True" || target.GetReason() != "EvictionByEvictionAPI" || target.GetMessage() != "Eviction API: evicting":
		t.Errorf("the condition is %v", target)
	case b.GetStatus().GetDisruptionsAllowed() != 0 || b.GetStatus().GetDisruptedPods()["one"] == nil:
		t.Errorf("the budget is %v", b.GetStatus())
	case b.GetMetadata().GetResourceVersion() != one.GetMetadata().GetResourceVersion():
		t.Errorf("the budget changed at %s, the pod at %s", b.GetMetadata().GetResourceVersion(), one.GetMetadata().GetResourceVersion())
	case b.GetStatus().GetConditions()[0].GetReason() != "InsufficientPods":
		t.Errorf("the conditions are %v", b.GetStatus().GetConditions())
	}
	_, err = client.Evict(ctx, c, "default", "two", client.IfUID(two.GetMetadata().GetUid()))
	name, cause, ok := apierr.RefusedBudget(err)
	if apierr.Code(err) != codes.ResourceExhausted || !ok || name != "web" || cause != "The disruption budget web does not allow evicting pods currently" {
		t.Errorf("refused by %q because %q: %v", name, cause, err)
	}
	if removed, err := client.Evict(ctx, c, "default", "one", client.GracePeriod(0)); err != nil || !removed {
		t.Errorf("a pod that is being deleted: %t, %v", removed, err)
	}
	if _, err := client.Evict(ctx, c, "default", "one"); !apierr.IsNotFound(err) {
		t.Errorf("a pod that is gone: %v", err)
	}
}

// TestEvictWithoutBudget evicts pods that need none, and those of which the budget is no obstacle.
func TestEvictWithoutBudget(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	makeBudget(t, c, "web", &policyv1.PodDisruptionBudgetStatus{})
	makeBound(t, c, "web", "failed", "Failed", "False")
	makeBound(t, c, "web", "pending", "Pending", "False")
	makeBound(t, c, "other", "free", "Running", "True")
	unbound := pod("unbound")
	unbound.Metadata.Labels = map[string]string{"app": "web"}
	do[*corev1.Pod](t)(client.Create(ctx, c, unbound))
	for name, gone := range map[string]bool{"failed": true, "pending": false, "free": false, "unbound": true} {
		if removed, err := client.Evict(ctx, c, "default", name); err != nil || removed != gone {
			t.Errorf("%s: removed %t, %v", name, removed, err)
		}
	}
	makeBound(t, c, "web", "unready", "Running", "False")
	if _, err := client.Evict(ctx, c, "default", "unready"); apierr.Reason(err) != apierr.ReasonDisruptionBudget {
		t.Errorf("an unready pod of a budget without healthy pods: %v", err)
	}
	do[*policyv1.PodDisruptionBudget](t)(client.Patch[*policyv1.PodDisruptionBudget](ctx, c, "default", "web",
		[]byte(`{"spec":{"unhealthyPodEvictionPolicy":"AlwaysAllow"}}`)))
	if _, err := client.Evict(ctx, c, "default", "unready"); err != nil {
		t.Errorf("AlwaysAllow: %v", err)
	}
	makeBound(t, c, "web", "ready", "Running", "True")
	_, err := client.Evict(ctx, c, "default", "ready")
	if d, ok := apierr.RetryAfter(err); !ok || d != 10*time.Second || !strings.Contains(apierr.Message(err), "The disruption budget web is still being processed by the server.") {
		t.Errorf("a budget whose status is out of date: after %v, %v", d, err)
	}
}

// TestEvictRefusesBadRequests has requests without sense or rights, and a pod with two budgets.
func TestEvictRefusesBadRequests(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	makeBound(t, c, "web", "p", "Running", "True")
	r := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	for want, req := range map[string]*policyv1.Eviction{
		"eviction.metadata.name: is required":                {Metadata: &metav1.ObjectMeta{Namespace: "default"}},
		"eviction.metadata.namespace: is required":           {Metadata: &metav1.ObjectMeta{Name: "p"}},
		"gracePeriodSeconds: must not be negative":           {DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: proto.Int64(-1)}},
		`deleteOptions.dryRun[0]: Unsupported value: "Some"`: {DeleteOptions: &metav1.DeleteOptions{DryRun: []string{"Some"}}},
		`propagationPolicy: Unsupported value: "No"`:         {DeleteOptions: &metav1.DeleteOptions{PropagationPolicy: proto.String("No")}},
		"must not both be set": {DeleteOptions: &metav1.DeleteOptions{
			PropagationPolicy: proto.String("Orphan"), OrphanDependents: proto.Bool(true),
		}},
		"ignoreStoreReadErrorWithClusterBreakingPotential": {DeleteOptions: &metav1.DeleteOptions{
			IgnoreStoreReadErrorWithClusterBreakingPotential: proto.Bool(true),
		}},
	} {
		if req.GetMetadata() == nil {
			req.Metadata = &metav1.ObjectMeta{Namespace: "default", Name: "p"}
		}
		if _, err := r.Evict(ctx, &apiv1.EvictRequest{Eviction: req}); !apierr.IsBadRequest(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for _, caller := range []as{
		{ClientConnInterface: conn, User: "xebec:workloads", Group: authz.GroupServices}, {ClientConnInterface: conn, User: "bob"},
		{ClientConnInterface: conn, User: "system:node:node-1", Group: authz.GroupNodes},
	} {
		if _, err := client.Evict(ctx, client.New(caller), "default", "p"); !apierr.IsForbidden(err) {
			t.Errorf("%s evicts: %v", caller.User, err)
		}
	}
	for _, name := range []string{"web", "also"} {
		do[*policyv1.PodDisruptionBudget](t)(client.Create(ctx, c, &policyv1.PodDisruptionBudget{
			Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec:     &policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}},
		}))
	}
	_, err := client.Evict(ctx, c, "default", "p")
	want := "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support. They are also and web."
	if apierr.Code(err) != codes.FailedPrecondition || apierr.Message(err) != want {
		t.Errorf("two budgets: %v", err)
	}
}

// TestEvictionsDoNotOverspend has two apiservers evict pods at once, more than the budget allows.
func TestEvictionsDoNotOverspend(t *testing.T) {
	const pods, allowed = 40, 7
	etcd := etcdtest.New(t, 1)
	c := admin(start(t, etcd))
	clients := []*client.Client{c, admin(start(t, etcd))}
	waitNamespace(t, c)
	makeBudget(t, c, "web", &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed, CurrentHealthy: pods, DesiredHealthy: pods - allowed, ExpectedPods: pods})
	for i := range pods {
		makeBound(t, c, "web", fmt.Sprintf("p-%d", i), "Running", "True")
	}
	var evicted atomic.Int64
	var all sync.WaitGroup
	for i := range pods {
		all.Go(func() {
			for {
				_, err := client.Evict(t.Context(), clients[i%2], "default", fmt.Sprintf("p-%d", i))
				switch {
				case err == nil:
					evicted.Add(1)
				case apierr.Reason(err) == apierr.ReasonOverloaded:
					continue
				case apierr.Reason(err) != apierr.ReasonDisruptionBudget:
					t.Error(err)
				}
				return
			}
		})
	}
	all.Wait()
	b := getBudget(t, c, "web")
	if n := evicted.Load(); n != allowed || b.GetStatus().GetDisruptionsAllowed() != 0 || len(b.GetStatus().GetDisruptedPods()) != allowed {
		t.Errorf("%d pods were evicted, want %d; the budget is %v", n, allowed, b.GetStatus())
	}
}

// TestEvictUnreadyPods evicts pods that are not ready as long as the budget has enough that are.
func TestEvictUnreadyPods(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	b := makeBudget(t, c, "web", &policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 1, ExpectedPods: 2})
	makeBound(t, c, "web", "unready", "Running", "False")
	if _, err := client.Evict(ctx, c, "default", "unready"); err != nil {
		t.Errorf("a budget with enough healthy pods: %v", err)
	}
	b.Status.CurrentHealthy = 0
	b.Status.DisruptedPods = map[string]*timestamppb.Timestamp{}
	do[*policyv1.PodDisruptionBudget](t)(client.UpdateStatus(ctx, c, b))
	makeBound(t, c, "web", "more", "Running", "False")
	_, err := client.Evict(ctx, c, "default", "more")
	if _, cause, _ := apierr.RefusedBudget(err); cause != "The disruption budget web needs 1 healthy pods and has 0 currently" {
		t.Errorf("a budget without enough: %v", err)
	}
}
