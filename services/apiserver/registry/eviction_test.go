package registry

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// disruption is a budget and a pod that is evicted.
type disruption struct {
	budget *policyv1.PodDisruptionBudget
	pod    *corev1.Pod
}

func newDisruption() disruption {
	return disruption{
		&policyv1.PodDisruptionBudget{
			Metadata: &metav1.ObjectMeta{Name: "web", Generation: 2}, Spec: &policyv1.PodDisruptionBudgetSpec{},
			Status: &policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, CurrentHealthy: 3, DesiredHealthy: 2, ExpectedPods: 3, DisruptionsAllowed: 1},
		},
		&corev1.Pod{
			Metadata: &metav1.ObjectMeta{Name: "p"},
			Status:   &corev1.PodStatus{Phase: core.PodRunning, Conditions: []*corev1.PodCondition{{Type: core.PodReady, Status: "True"}}},
		},
	}
}

func TestDisrupt(t *testing.T) {
	none := func(d disruption) { d.budget.Status.DisruptionsAllowed, d.budget.Status.CurrentHealthy = 0, 2 }
	unready := func(d disruption) { d.pod.Status.Conditions[0].Status = "False" }
	condition := func(reason, message string) func(disruption) {
		return func(d disruption) {
			d.budget.Status.Conditions = []*metav1.Condition{{Type: "DisruptionAllowed", Status: "False", Reason: reason, Message: message}}
		}
	}
	for _, tt := range []struct {
		name      string
		changes   []func(disruption)
		disrupted bool
		code      codes.Code
		cause     string
	}{
		{"allowed", nil, true, codes.OK, ""},
		{"none allowed", []func(disruption){none}, false, codes.ResourceExhausted, "The disruption budget web needs 2 healthy pods and has 2 currently"},
		{"the status could not be computed", []func(disruption){none, condition("SyncFailed", "why")}, false, codes.ResourceExhausted,
			"The disruption budget web does not allow evicting pods currently because it failed sync: why"},
		{"another reason", []func(disruption){none, condition("Paused", "why"), func(d disruption) { d.budget.Status.CurrentHealthy = 3 }}, false,
			codes.ResourceExhausted, "The disruption budget web does not allow evicting pods currently (Paused): why"},
		{"no reason", []func(disruption){none, func(d disruption) { d.budget.Status.CurrentHealthy = 3 }}, false, codes.ResourceExhausted,
			"The disruption budget web does not allow evicting pods currently"},
		{"the status is out of date", []func(disruption){func(d disruption) { d.budget.Metadata.Generation++ }}, false, codes.ResourceExhausted,
			"The disruption budget web is still being processed by the server."},
		{"less than none", []func(disruption){func(d disruption) { d.budget.Status.DisruptionsAllowed = -1 }}, false, codes.PermissionDenied, ""},
		{"too many evictions await the controller", []func(disruption){func(d disruption) {
			d.budget.Status.DisruptedPods = map[string]*timestamppb.Timestamp{}
			for i := range maxDisrupted + 1 {
				d.budget.Status.DisruptedPods[fmt.Sprint(i)] = timestamppb.New(noon)
			}
		}}, false, codes.PermissionDenied, ""},
		{"a pod that is not ready, with enough others", []func(disruption){none, unready}, false, codes.OK, ""},
		{"a pod that is not ready, without", []func(disruption){none, unready, func(d disruption) { d.budget.Status.CurrentHealthy = 1 }}, false,
			codes.ResourceExhausted, "The disruption budget web needs 2 healthy pods and has 1 currently"},
		{"a pod that is not ready, and none has to be", []func(disruption){none, unready, func(d disruption) { d.budget.Status.DesiredHealthy = 0 }}, false,
			codes.ResourceExhausted, "The disruption budget web does not allow evicting pods currently"},
		{"a pod that is not ready costs a disruption", []func(disruption){unready, func(d disruption) { d.budget.Status.CurrentHealthy = 1 }}, true, codes.OK, ""},
		{"AlwaysAllow", []func(disruption){none, unready, func(d disruption) {
			d.budget.Status.CurrentHealthy = 1
			d.budget.Spec.UnhealthyPodEvictionPolicy = proto.String("AlwaysAllow")
		}}, false, codes.OK, ""},
	} {
		d := newDisruption()
		for _, change := range tt.changes {
			change(d)
		}
		before := proto.CloneOf(d.budget)
		disrupted, err := Disrupt(d.budget, d.pod, noon)
		_, cause, _ := apierr.RefusedBudget(err)
		if disrupted != tt.disrupted || apierr.Code(err) != tt.code || cause != tt.cause {
			t.Errorf("%s: %t, %v, because %q", tt.name, disrupted, err, cause)
		}
		if !disrupted {
			if !proto.Equal(d.budget, before) {
				t.Errorf("%s: the budget was changed", tt.name)
			}
			continue
		}
		s := d.budget.GetStatus()
		if s.GetDisruptionsAllowed() != 0 || !s.GetDisruptedPods()["p"].AsTime().Equal(noon) || s.GetConditions()[0].GetReason() != "InsufficientPods" {
			t.Errorf("%s: the status is %v", tt.name, s)
		}
	}
}

func TestNeedsBudget(t *testing.T) {
	for phase, want := range map[string]bool{core.PodRunning: true, core.PodUnknown: true, core.PodPending: false, core.PodFailed: false, core.PodSucceeded: false} {
		p := newDisruption().pod
		p.Status.Phase = phase
		if NeedsBudget(p) != want {
			t.Errorf("a pod that is %s: want %t", phase, want)
		}
		p.Metadata.DeletionTimestamp = timestamppb.New(noon)
		if NeedsBudget(p) {
			t.Errorf("a pod that is %s and being deleted needs a budget", phase)
		}
	}
}
