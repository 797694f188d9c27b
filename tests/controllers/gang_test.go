package controllers

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/condition"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
)

// TestGangsAreBoundAtOneRevision has a gang wait for its pods and for room, and looks at the
// revisions at which its pods are bound.
func TestGangsAreBoundAtOneRevision(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	node(t, c, "node-1")
	api, _ := runScheduler(t, h, "master-1")
	member := func(i int) *corev1.Pod {
		return asking(fmt.Sprint("worker-", i), "2", func(p *corev1.Pod) {
			p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: proto.String("workers")}
		})
	}
	why := func(want string) {
		t.Helper()
		eventually(t, "why says "+want, func() bool {
			resp, err := api.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: "worker-0"})
			return err == nil && strings.Contains(resp.GetWaitsFor(), want)
		})
	}
	create(t, c, member(0))
	why("its pod group default/workers, which does not exist")
	create(t, c, &schedulingv1alpha2.PodGroup{Metadata: meta("default", "workers"), Spec: &schedulingv1alpha2.PodGroupSpec{
		SchedulingPolicy: &schedulingv1alpha2.PodGroupSchedulingPolicy{Gang: &schedulingv1alpha2.GangSchedulingPolicy{MinCount: 3}},
	}})
	create(t, c, member(1))
	why("other pods of its gang default/workers: 2 of 3 exist")
	create(t, c, member(2))
	scheduled := func() string {
		g := get[*schedulingv1alpha2.PodGroup](t, c, "default", "workers")
		cond := condition.Find(g.GetStatus().GetConditions(), "PodGroupScheduled")
		return cond.GetStatus() + " " + cond.GetReason()
	}
	eventually(t, "the group is unschedulable", func() bool { return scheduled() == "False Unschedulable" })
	why("room for its gang: pod group is unschedulable: 3 pods have to be placed together, 2 fit")
	expectEvent(t, c, "default", "workers", "Warning FailedScheduling: pod group is unschedulable: 3 pods have to be placed together, 2 fit")
	node(t, c, "node-2")
	eventually(t, "the group is scheduled", func() bool { return scheduled() == "True Scheduled" })
	revisions := map[string]bool{}
	for i := range 3 {
		p := get[*corev1.Pod](t, c, "default", fmt.Sprint("worker-", i))
		if p.GetSpec().GetNodeName() == "" {
			t.Errorf("worker-%d has no node", i)
		}
		revisions[p.GetMetadata().GetResourceVersion()] = true
	}
	if len(revisions) != 1 {
		t.Errorf("the pods are bound at the revisions %v", revisions)
	}
}
