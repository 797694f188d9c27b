package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
)

// preemptionHouse has nodes with 4 cores, a scheduler, agents, and priority classes from p1 to p4,
// and never.
func preemptionHouse(t *testing.T, nodes ...string) (*house, *client.Client, schedulerv1.SchedulerServiceClient) {
	t.Helper()
	h := newHouse(t)
	c := h.admin()
	for i := range int32(4) {
		create(t, c, &schedulingv1.PriorityClass{Metadata: meta("", fmt.Sprint("p", i+1)), Value: i + 1})
	}
	create(t, c, &schedulingv1.PriorityClass{Metadata: meta("", "never"), Value: 10, PreemptionPolicy: proto.String("Never")})
	for _, name := range nodes {
		node(t, c, name)
	}
	api, _ := runScheduler(t, h, "master-1")
	runAgents(t, h, false)
	return h, c, api
}

func class(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.PriorityClassName = name }
}

// heldBack keeps a pod in the API while it is being deleted, and the agents from finishing that.
func heldBack(p *corev1.Pod) { p.Metadata.Annotations = map[string]string{outOfReach: "yes"} }

// TestPreemption plays the specs "[sig-scheduling] SchedulerPreemption [Serial] validates basic
// preemption works" and "validates lower priority pod preemption by critical pod".
func TestPreemption(t *testing.T) {
	_, c, api := preemptionHouse(t, "node-1", "node-2")
	low := create(t, c, asking("low", "3", class("p1")))
	lowNode := nodeOf(t, c, "low")
	create(t, c, asking("middle", "3", class("p2")))
	nodeOf(t, c, "middle")

	create(t, c, asking("basic", "3", class("p4")))
	if got := nodeOf(t, c, "basic"); got != lowNode {
		t.Errorf("basic is on %s, the pod with the lowest priority was on %s", got, lowNode)
	}
	if !gone[*corev1.Pod](t, c, "default", "low") || gone[*corev1.Pod](t, c, "default", "middle") {
		t.Error("want low deleted and middle kept")
	}
	basic := get[*corev1.Pod](t, c, "default", "basic")
	if got := basic.GetStatus().GetNominatedNodeName(); got != "" {
		t.Errorf("a bound pod has the nominated node %s", got)
	}
	expectEvent(t, c, "default", "low", "Normal Preempted: Preempted by pod "+basic.GetMetadata().GetUid()+" on node "+lowNode)
	expectEvent(t, c, "default", "basic", "Warning FailedScheduling: 0/2 nodes are available: 2 Insufficient cpu.")
	if low.GetSpec().GetPriority() != 1 {
		t.Errorf("priority %d", low.GetSpec().GetPriority())
	}

	critical := asking("critical", "3", class("system-cluster-critical"))
	critical.Metadata.Namespace = "kube-system"
	create(t, c, critical)
	eventually(t, "the critical pod is bound", func() bool {
		return get[*corev1.Pod](t, c, "kube-system", "critical").GetSpec().GetNodeName() != ""
	})
	if !gone[*corev1.Pod](t, c, "default", "middle") || gone[*corev1.Pod](t, c, "default", "basic") {
		t.Error("want middle deleted and basic kept")
	}

	refusedLater := create(t, c, asking("equal", "3", class("p4")))
	refused(t, c, refusedLater.GetMetadata().GetName(), "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.")
	create(t, c, asking("never", "3", class("never")))
	refused(t, c, "never", "preemption: not eligible due to preemptionPolicy=Never.")
	resp, err := api.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: "never"})
	if err != nil || !strings.Contains(resp.GetPreemption(), "preemptionPolicy=Never") {
		t.Errorf("Explain: %v, %v", resp, err)
	}
}

// TestPreemptedPodsTerminate plays the spec "[sig-scheduling] SchedulerPreemption [Serial]
// validates pod disruption condition is added to the preempted pod": the pod waits for a victim
// with a grace period, and deletes no others meanwhile.
func TestPreemptedPodsTerminate(t *testing.T) {
	_, c, api := preemptionHouse(t, "node-1", "node-2")
	create(t, c, asking("low-1", "3", class("p1"), heldBack))
	first := nodeOf(t, c, "low-1")
	create(t, c, asking("low-2", "3", class("p2")))
	nodeOf(t, c, "low-2")
	create(t, c, asking("high", "3", class("p4")))
	eventually(t, "low-1 is being deleted", func() bool { return leaving(t, c, "low-1") })
	victim := get[*corev1.Pod](t, c, "default", "low-1")
	cond := core.PodCondition(victim, core.PodDisruptionTarget)
	if cond.GetStatus() != "True" || cond.GetReason() != "PreemptionByScheduler" ||
		cond.GetMessage() != "default-scheduler: preempting to accommodate a higher priority pod" {
		t.Errorf("condition %v", cond)
	}
	if got := victim.GetMetadata().GetDeletionGracePeriodSeconds(); got != victim.GetSpec().GetTerminationGracePeriodSeconds() {
		t.Errorf("grace period %d", got)
	}
	if got := get[*corev1.Pod](t, c, "default", "high").GetStatus().GetNominatedNodeName(); got != first {
		t.Errorf("nominated node %q, want %s", got, first)
	}
	// A change of another node makes the scheduler try the pod again.
	patch[*corev1.Pod](t, c, "default", "high", `{"metadata":{"labels":{"changed":"yes"}}}`)
	refused(t, c, "high", "preemption: not eligible due to a terminating pod on the nominated node.")
	resp, err := api.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: "high"})
	if err != nil || !strings.Contains(resp.GetPreemption(), "the pod waits for others to end on its nominated node "+first) {
		t.Errorf("Explain: %v, %v", resp, err)
	}
	throughout(t, 300*time.Millisecond, "no second victim", func() error {
		if leaving(t, c, "low-2") {
			return fmt.Errorf("low-2 is being deleted")
		}
		return nil
	})
	// A pod with lower priority than the nominated one does not take its room.
	create(t, c, asking("between", "1", class("p3")))
	if got := nodeOf(t, c, "between"); got == first {
		t.Errorf("between is on %s, where high is nominated", got)
	}
	if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", "low-1", client.GracePeriod(0)); err != nil {
		t.Fatal(err)
	}
	if got := nodeOf(t, c, "high"); got != first {
		t.Errorf("high is on %s, nominated was %s", got, first)
	}
}

// TestPreemptionOfProtectedPods has a PodDisruptionBudget protect the pod with the lowest priority.
func TestPreemptionOfProtectedPods(t *testing.T) {
	_, c, _ := preemptionHouse(t, "node-1", "node-2")
	create(t, c, &policyv1.PodDisruptionBudget{Metadata: meta("default", "web"), Spec: &policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "protected"}},
	}})
	create(t, c, asking("low", "3", class("p1"), func(p *corev1.Pod) { p.Metadata.Labels = map[string]string{"app": "protected"} }))
	nodeOf(t, c, "low")
	create(t, c, asking("middle", "3", class("p2")))
	want := nodeOf(t, c, "middle")
	create(t, c, asking("high", "3", class("p4")))
	if got := nodeOf(t, c, "high"); got != want {
		t.Errorf("high is on %s, want %s, where no budget protects pods", got, want)
	}
	create(t, c, asking("higher", "3", class("system-cluster-critical"), func(p *corev1.Pod) { p.Metadata.Namespace = "kube-system" }))
	eventually(t, "a budget does not prevent preemption", func() bool {
		return gone[*corev1.Pod](t, c, "default", "low") || gone[*corev1.Pod](t, c, "default", "high")
	})
}

// TestPreemptionPath plays the spec "[sig-scheduling] SchedulerPreemption [Serial]
// PreemptionExecutionPath runs ReplicaSets to verify preemption running path": the pods of
// ReplicaSets with rising priority take the places of those before.
func TestPreemptionPath(t *testing.T) {
	h, c, _ := preemptionHouse(t, "node-1")
	runWorkloads(t, h, "master-1")
	set := func(i, replicas int32, cpu string) {
		name := fmt.Sprint("rs-", i)
		tmpl := template(name, "echo:1")
		tmpl.Spec.PriorityClassName = fmt.Sprint("p", i)
		tmpl.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: quantities("cpu", cpu)}
		create(t, c, &appsv1.ReplicaSet{Metadata: meta("default", name), Spec: &appsv1.ReplicaSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: tmpl,
		}})
	}
	placed := func(i int) int {
		pods := podsOf(t, c, "default", fmt.Sprint("app=rs-", i))
		return len(slices.DeleteFunc(pods, func(p *corev1.Pod) bool {
			return p.GetSpec().GetNodeName() == "" || p.GetMetadata().GetDeletionTimestamp() != nil
		}))
	}
	expect := func(what string, counts ...int) {
		t.Helper()
		eventually(t, what, func() bool {
			for i, want := range counts {
				if placed(i+1) != want {
					return false
				}
			}
			return true
		})
	}
	set(1, 5, "400m")
	expect("the first set runs", 5)
	set(2, 4, "400m")
	expect("the second set runs beside it", 5, 4)
	set(3, 4, "400m")
	expect("the third takes places of the first", 2, 4, 4)
	set(4, 2, "1600m")
	expect("the fourth takes the places of the first and the second", 0, 0, 2, 2)
}
