package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

type pdb = policyv1.PodDisruptionBudget

// budget is a budget of the pods with the label app=name.
func budget(name string, minAvailable, maxUnavailable *metav1.IntOrString) *pdb {
	return &pdb{Metadata: meta("default", name), Spec: &policyv1.PodDisruptionBudgetSpec{
		MinAvailable: minAvailable, MaxUnavailable: maxUnavailable,
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
	}}
}

// eventuallyAllows waits until the status of a budget is about its present spec and as wanted.
func eventuallyAllows(t *testing.T, c *client.Client, name string, healthy, desired, expected, allowed int32) {
	t.Helper()
	var b *pdb
	defer func() {
		if t.Failed() {
			t.Logf("the budget is %v", b)
		}
	}()
	eventually(t, fmt.Sprintf("%s has %d healthy of %d desired and %d expected pods and allows %d disruptions", name, healthy, desired, expected, allowed), func() bool {
		b = get[*pdb](t, c, "default", name)
		s := b.GetStatus()
		return s.GetObservedGeneration() == b.GetMetadata().GetGeneration() && s.GetCurrentHealthy() == healthy &&
			s.GetDesiredHealthy() == desired && s.GetExpectedPods() == expected && s.GetDisruptionsAllowed() == allowed
	})
	want := map[bool]string{true: "True SufficientPods", false: "False InsufficientPods"}[allowed > 0]
	if got := condition.Find(b.GetStatus().GetConditions(), "DisruptionAllowed"); got.GetStatus()+" "+got.GetReason() != want {
		t.Errorf("DisruptionAllowed is %v, want %s", got, want)
	}
}

// evictOne evicts a pod of an app that is ready and not being deleted.
func evictOne(t *testing.T, c *client.Client, app string) error {
	t.Helper()
	for _, p := range podsOf(t, c, "default", "app="+app) {
		if p.GetMetadata().GetDeletionTimestamp() == nil && core.IsPodReady(p) {
			_, err := client.Evict(t.Context(), c, "default", p.GetMetadata().GetName(), client.IfUID(p.GetMetadata().GetUid()))
			return err
		}
	}
	return errors.New("no pod is ready")
}

// TestDisruptionBudgets plays the specs of Kubernetes' DisruptionController: "should create a
// PodDisruptionBudget", "should observe PodDisruptionBudget status updated", "should update/patch
// PodDisruptionBudget status" and "should block an eviction until the PDB is updated to allow it".
func TestDisruptionBudgets(t *testing.T) {
	h := newHouse(t)
	c, ctx := h.admin(), t.Context()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)

	create(t, c, budget("web", object.Count(1), nil))
	eventuallyAllows(t, c, "web", 0, 1, 0, 0)
	expectEvent(t, c, "default", "web", "Normal NoPods: No matching pods found")
	patch[*pdb](t, c, "default", "web", `{"spec":{"minAvailable":"2%%"}}`)
	eventuallyAllows(t, c, "web", 0, 0, 0, 0)
	patch[*pdb](t, c, "default", "web", `{"spec":{"minAvailable":3}}`)

	rs := &appsv1.ReplicaSet{Metadata: meta("default", "web"), Spec: &appsv1.ReplicaSetSpec{
		Replicas: proto.Int32(3), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: template("web", "echo:1"),
	}}
	create(t, c, rs)
	eventuallyAllows(t, c, "web", 3, 3, 3, 0)
	if err := evictOne(t, c, "web"); apierr.Code(err) != codes.ResourceExhausted {
		t.Errorf("minAvailable 3 of 3: %v", err)
	} else if _, cause, _ := apierr.RefusedBudget(err); cause != "The disruption budget web needs 3 healthy pods and has 3 currently" {
		t.Errorf("the cause is %q", cause)
	}
	patch[*pdb](t, c, "default", "web", `{"spec":{"minAvailable":2}}`)
	eventuallyAllows(t, c, "web", 3, 2, 3, 1)
	if err := evictOne(t, c, "web"); err != nil {
		t.Errorf("minAvailable 2 of 3: %v", err)
	}
	eventuallyAllows(t, c, "web", 3, 2, 3, 1)
	patch[*pdb](t, c, "default", "web", `{"spec":{"minAvailable":null,"maxUnavailable":0}}`)
	eventuallyAllows(t, c, "web", 3, 3, 3, 0)
	if err := evictOne(t, c, "web"); apierr.Code(err) != codes.ResourceExhausted {
		t.Errorf("maxUnavailable 0: %v", err)
	}

	// Entries of evicted pods that do not exist are dropped.
	eventually(t, "the status is updated", func() bool {
		b := get[*pdb](t, c, "default", "web")
		b.Status.DisruptedPods = map[string]*timestamppb.Timestamp{"gone": timestamppb.Now()}
		_, err := client.UpdateStatus(ctx, c, b)
		return err == nil
	})
	eventually(t, "the entry is dropped", func() bool { return len(get[*pdb](t, c, "default", "web").GetStatus().GetDisruptedPods()) == 0 })
	if _, err := client.Patch[*pdb](ctx, c, "default", "web", []byte(`{"status":{"currentHealthy":7}}`), client.Subresource("status")); err != nil {
		t.Errorf("patch of the status: %v", err)
	}
	eventuallyAllows(t, c, "web", 3, 3, 3, 0)

	if _, err := client.Delete[*pdb](ctx, c, "default", "web"); err != nil {
		t.Fatal(err)
	}
	if err := evictOne(t, c, "web"); err != nil {
		t.Errorf("without a budget: %v", err)
	}
}

// TestDisruptionBudgetCollections plays "Listing PodDisruptionBudgets for all namespaces should
// list and delete a collection of PodDisruptionBudgets".
func TestDisruptionBudgetCollections(t *testing.T) {
	c := newHouse(t).admin()
	create(t, c, &corev1.Namespace{Metadata: meta("", "other")})
	for i, namespace := range []string{"default", "default", "other"} {
		b := budget(fmt.Sprintf("b-%d", i), object.Text("1%"), nil)
		b.Metadata.Namespace, b.Metadata.Labels = namespace, map[string]string{"set": "x"}
		create(t, c, b)
	}
	if all, _, err := client.List[*pdb](t.Context(), c, client.ListOptions{LabelSelector: "set=x"}); err != nil || len(all) != 3 {
		t.Errorf("all namespaces have %v, %v", all, err)
	}
	if _, err := client.DeleteCollection[*pdb](t.Context(), c, client.ListOptions{Namespace: "default", LabelSelector: "set=x"}); err != nil {
		t.Fatal(err)
	}
	if all, _, err := client.List[*pdb](t.Context(), c, client.ListOptions{}); err != nil || len(all) != 1 || all[0].GetMetadata().GetName() != "b-2" {
		t.Errorf("there remain %v, %v", all, err)
	}
}

// TestDisruptionBudgetsOfOwners has budgets whose limits depend on the scale of the owners, which
// is found, or is not.
func TestDisruptionBudgetsOfOwners(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)
	create(t, c, budget("web", object.Text("50%"), nil))
	create(t, c, deployment("default", "web", 5))
	eventuallyAllows(t, c, "web", 5, 3, 5, 2)

	create(t, c, budget("work", nil, object.Count(1)))
	work := template("work", "echo:1")
	work.Spec.RestartPolicy = "Never"
	create(t, c, &batchv1.Job{Metadata: meta("default", "work"), Spec: &batchv1.JobSpec{Template: work}})
	expectEvent(t, c, "default", "work", "CalculateExpectedPodCountFailed: Failed to calculate the number of expected pods: Job of batch/v1 does not implement the scale subresource")
	eventually(t, "the budget says so", func() bool {
		got := condition.Find(get[*pdb](t, c, "default", "work").GetStatus().GetConditions(), "DisruptionAllowed")
		return got.GetReason() == "SyncFailed" && got.GetStatus() == "False"
	})
	alone := pod("default", "alone")
	alone.Metadata.Labels = map[string]string{"app": "web"}
	create(t, c, alone)
	expectEvent(t, c, "default", "web", "UnmanagedPods: Pods selected by this PodDisruptionBudget (selector: app=web)")
}

// TestEvictedJobIsNotFailed plays "Job should allow to use a pod failure policy to ignore failure
// matching on DisruptionTarget condition".
func TestEvictedJobIsNotFailed(t *testing.T) {
	h := newHouse(t)
	c, ctx := h.admin(), t.Context()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)
	tmpl := template("work", "echo:1")
	tmpl.Spec.RestartPolicy = "Never"
	create(t, c, &batchv1.Job{Metadata: meta("default", "work"), Spec: &batchv1.JobSpec{
		BackoffLimit: proto.Int32(0), Template: tmpl,
		PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []*batchv1.PodFailurePolicyRule{{
			Action: "Ignore", OnPodConditions: []*batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: "DisruptionTarget", Status: "True"}},
		}}},
	}})
	var first string
	eventually(t, "the pod runs", func() bool {
		all := podsOf(t, c, "default", "app=work")
		if len(all) == 1 && core.IsPodReady(all[0]) {
			first = all[0].GetMetadata().GetName()
		}
		return first != ""
	})
	if _, err := client.Evict(ctx, c, "default", first); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another pod runs", func() bool {
		for _, p := range podsOf(t, c, "default", "app=work") {
			if p.GetMetadata().GetName() != first && core.IsPodReady(p) {
				return true
			}
		}
		return false
	})
	if s := get[*batchv1.Job](t, c, "default", "work").GetStatus(); s.GetFailed() != 0 || len(s.GetConditions()) != 0 {
		t.Errorf("the status is %v", s)
	}
}

// TestParallelEvictionsKeepTheBudget has two clients evict all pods of a Deployment again and
// again, as two drains do. The healthy pods are never fewer than the budget demands.
func TestParallelEvictionsKeepTheBudget(t *testing.T) {
	const replicas, minAvailable = 6, 4
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)
	create(t, c, budget("web", object.Count(minAvailable), nil))
	create(t, c, deployment("default", "web", replicas))
	eventuallyAllows(t, c, "web", replicas, minAvailable, replicas, replicas-minAvailable)
	complete := false
	observe(t, h, "app=web", func(o *observer) {
		_, ready := o.count()
		complete = complete || ready == replicas
		if complete && ready < minAvailable {
			t.Errorf("%d pods are ready, fewer than %d", ready, minAvailable)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var clients sync.WaitGroup
	var mu sync.Mutex
	evicted := 0
	for range 2 {
		clients.Go(func() {
			for ctx.Err() == nil {
				all, _, err := client.List[*corev1.Pod](ctx, c, client.ListOptions{Namespace: "default", LabelSelector: "app=web"})
				if err != nil {
					continue
				}
				for _, p := range all {
					if p.GetMetadata().GetDeletionTimestamp() != nil || !core.IsPodReady(p) {
						continue
					}
					if _, err := client.Evict(ctx, c, "default", p.GetMetadata().GetName(), client.IfUID(p.GetMetadata().GetUid())); err == nil {
						mu.Lock()
						evicted++
						mu.Unlock()
					}
				}
			}
		})
	}
	clients.Wait()
	if evicted <= replicas-minAvailable {
		t.Errorf("only %d pods were evicted", evicted)
	}
	t.Logf("%d pods were evicted", evicted)
}
