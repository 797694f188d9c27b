package scheduling_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
)

type (
	group    = *schedulingv1alpha2.PodGroup
	workload = *schedulingv1alpha2.Workload
)

func gang(n int32) *schedulingv1alpha2.PodGroupSchedulingPolicy {
	return &schedulingv1alpha2.PodGroupSchedulingPolicy{Gang: &schedulingv1alpha2.GangSchedulingPolicy{MinCount: n}}
}

func newGroup() group {
	return &schedulingv1alpha2.PodGroup{
		Metadata: kindtest.Meta("gang"), Spec: &schedulingv1alpha2.PodGroupSpec{SchedulingPolicy: gang(3)},
	}
}

func TestPodGroup(t *testing.T) {
	basic := &schedulingv1alpha2.BasicSchedulingPolicy{}
	kindtest.Validate(t, newGroup, []kindtest.Bad[group]{
		{Name: "basic", Edit: func(g group) { g.Spec.SchedulingPolicy = &schedulingv1alpha2.PodGroupSchedulingPolicy{Basic: basic} }},
		{Name: "no spec", Edit: func(g group) { g.Spec = nil }, Want: []string{`spec.schedulingPolicy: Invalid value: "": must specify one of: ` + "`basic`, `gang`"}},
		{Name: "two policies", Edit: func(g group) { g.Spec.SchedulingPolicy.Basic = basic },
			Want: []string{"spec.schedulingPolicy: Invalid value: \"{`basic`, `gang`}\": must specify exactly one of: `basic`, `gang`"}},
		{Name: "no pods", Edit: func(g group) { g.Spec.SchedulingPolicy = gang(0) }, Want: []string{"spec.schedulingPolicy.gang.minCount: Required value"}},
		{Name: "fewer than none", Edit: func(g group) { g.Spec.SchedulingPolicy = gang(-1) },
			Want: []string{"spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1"}},
		{Name: "a whole transaction", Edit: func(g group) { g.Spec.SchedulingPolicy = gang(scheduling.MaxMinCount) }},
		{Name: "more than a transaction", Edit: func(g group) { g.Spec.SchedulingPolicy = gang(501) },
			Want: []string{"spec.schedulingPolicy.gang.minCount: Invalid value: 501: must be at most 500: the pods of a gang are bound in one transaction, which holds no more"}},
		{Name: "template of nothing", Edit: func(g group) { g.Spec.PodGroupTemplateRef = &schedulingv1alpha2.PodGroupTemplateReference{} },
			Want: []string{`spec.podGroupTemplateRef: Invalid value: "": must specify one of: ` + "`workload`"}},
		{Name: "mode", Edit: func(g group) { g.Spec.DisruptionMode = proto.String("All") }, Want: []string{`spec.disruptionMode: Unsupported value: "All"`}},
		{Name: "claim of nothing", Edit: func(g group) { g.Spec.ResourceClaims = []*schedulingv1alpha2.PodGroupResourceClaim{{Name: "gpu"}} },
			Want: []string{"spec.resourceClaims[0]: Invalid value: \"\": must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"}},
	})
	kindtest.Update(t, newGroup, []kindtest.Edit[group]{
		{Name: "minCount", Edit: func(g group) { g.Spec.SchedulingPolicy = gang(4) }, Want: []string{"spec.schedulingPolicy: Invalid value"}},
		{Name: "labels", Edit: func(g group) { g.Metadata.Labels = map[string]string{"a": "b"} }},
	})
}

func TestPodGroupColumns(t *testing.T) {
	g := newGroup()
	g.Spec.PodGroupTemplateRef = &schedulingv1alpha2.PodGroupTemplateReference{
		Workload: &schedulingv1alpha2.WorkloadPodGroupTemplateReference{WorkloadName: "training", PodGroupTemplateName: "workers"},
	}
	kindtest.ExpectCells(t, g, kindtest.Now, map[string]string{"POLICY": "Gang", "WORKLOAD": "training", "STATUS": "Pending"})
	now := time.Unix(1000, 0)
	if !scheduling.SetPodGroupScheduled(g, condition.False, scheduling.GroupUnschedulable, "no room", now) {
		t.Error("a new condition changes nothing")
	}
	kindtest.ExpectCells(t, g, kindtest.Now, map[string]string{"STATUS": "Unschedulable"})
	if scheduling.SetPodGroupScheduled(g, condition.False, scheduling.GroupUnschedulable, "no room", now.Add(time.Hour)) {
		t.Error("the same condition changes something")
	}
	scheduling.SetPodGroupScheduled(g, condition.True, scheduling.GroupScheduled, "", now)
	kindtest.ExpectCells(t, g, kindtest.Now, map[string]string{"STATUS": "Scheduled"})
	if scheduling.SetPodGroupScheduled(g, condition.False, scheduling.GroupUnschedulable, "no room", now) {
		t.Error("a group that was scheduled is unscheduled by a further pod")
	}
}

func TestWorkload(t *testing.T) {
	base := func() workload {
		return &schedulingv1alpha2.Workload{Metadata: kindtest.Meta("training"), Spec: &schedulingv1alpha2.WorkloadSpec{
			PodGroupTemplates: []*schedulingv1alpha2.PodGroupTemplate{{Name: "workers", SchedulingPolicy: gang(3)}},
		}}
	}
	kindtest.Validate(t, base, []kindtest.Bad[workload]{
		{Name: "no templates", Edit: func(w workload) { w.Spec.PodGroupTemplates = nil }, Want: []string{"spec.podGroupTemplates: Required value"}},
		{Name: "no policy", Edit: func(w workload) { w.Spec.PodGroupTemplates[0].SchedulingPolicy = nil },
			Want: []string{"spec.podGroupTemplates[0].schedulingPolicy: Invalid value"}},
		{Name: "more than a transaction", Edit: func(w workload) { w.Spec.PodGroupTemplates[0].SchedulingPolicy = gang(501) },
			Want: []string{"spec.podGroupTemplates[0].schedulingPolicy.gang.minCount: Invalid value: 501: must be at most 500"}},
		{Name: "names", Edit: func(w workload) {
			w.Spec.PodGroupTemplates = append(w.Spec.PodGroupTemplates, w.Spec.PodGroupTemplates[0])
		},
			Want: []string{`spec.podGroupTemplates[1].name: Duplicate value: "workers"`}},
	})
	kindtest.Update(t, base, []kindtest.Edit[workload]{
		{Name: "templates", Edit: func(w workload) { w.Spec.PodGroupTemplates[0].Name = "driver" }, Want: []string{"spec.podGroupTemplates: Invalid value"}},
	})
	w := base()
	w.Spec.PodGroupTemplates[0].DisruptionMode = proto.String(scheduling.DisruptPodGroup)
	if got := strings.Join(kinds.Of(w).Warnings(w), "\n"); !strings.Contains(got, "spec.podGroupTemplates[0].disruptionMode: PodGroup has no effect") {
		t.Errorf("warnings are %q", got)
	}
}
