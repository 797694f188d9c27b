package policy_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

type budget = *policyv1.PodDisruptionBudget

func base() budget {
	return &policyv1.PodDisruptionBudget{Metadata: kindtest.Meta("web"), Spec: &policyv1.PodDisruptionBudgetSpec{
		MinAvailable: object.Text("50%"), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
	}}
}

func TestPodDisruptionBudget(t *testing.T) {
	kindtest.Validate(t, base, []kindtest.Bad[budget]{
		{Name: "no spec", Edit: func(b budget) { b.Spec = nil }},
		{Name: "both limits", Edit: func(b budget) { b.Spec.MaxUnavailable = object.Count(1) }, Want: []string{"spec: Invalid value: minAvailable and maxUnavailable cannot be both set"}},
		{Name: "negative", Edit: func(b budget) { b.Spec.MinAvailable = object.Count(-1) }, Want: []string{"spec.minAvailable: Invalid value: -1"}},
		{Name: "more than all", Edit: func(b budget) { b.Spec.MinAvailable = object.Text("101%") }, Want: []string{`spec.minAvailable: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "not a percentage", Edit: func(b budget) { b.Spec.MinAvailable, b.Spec.MaxUnavailable = nil, object.Text("half") }, Want: []string{`spec.maxUnavailable: Invalid value: "half"`}},
		{Name: "selector", Edit: func(b budget) {
			b.Spec.Selector.MatchExpressions = []*metav1.LabelSelectorRequirement{{Key: "app", Operator: "is"}}
		}, Want: []string{"spec.selector.matchExpressions[0].operator: Invalid value"}},
		{Name: "policy", Edit: func(b budget) { b.Spec.UnhealthyPodEvictionPolicy = proto.String("Never") }, Want: []string{`spec.unhealthyPodEvictionPolicy: Unsupported value: "Never"`}},
	})
	b := base()
	b.Status = &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 2}
	kindtest.ExpectCells(t, b, kindtest.Now, map[string]string{"MIN AVAILABLE": "50%", "MAX UNAVAILABLE": "N/A", "ALLOWED DISRUPTIONS": "2"})
}

func TestPodDisruptionBudgetStatus(t *testing.T) {
	b := base()
	b.Status = &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: -1, Conditions: []*metav1.Condition{
		{Type: "DisruptionAllowed", Status: "True", Reason: "SufficientPods", LastTransitionTime: kindtest.Ago(0)},
		{Type: "DisruptionAllowed", Status: "Maybe", Reason: "1"},
	}}
	kindtest.Expect(t, kinds.Of(b).ValidateStatusUpdate(b, base()), []string{
		"status.disruptionsAllowed: Invalid value: -1", `status.conditions[1].type: Duplicate value: "DisruptionAllowed"`,
		`status.conditions[1].status: Unsupported value: "Maybe"`, "status.conditions[1].lastTransitionTime: Required value",
		`status.conditions[1].reason: Invalid value: "1": a condition reason must start with`,
	})
}
