package scheduler

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

func TestExplain(t *testing.T) {
	s, c := clienttest.Start(t)
	e := &explainer{client: c, cfg: DefaultConfig(), profiles: DefaultConfig().newProfiles(), scheduler: DefaultName}
	explain := func(name string) *schedulerv1.ExplainResponse {
		t.Helper()
		resp, err := e.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: name})
		if err != nil {
			t.Fatalf("explain %s: %v", name, err)
		}
		return resp
	}
	clienttest.Seed(s, newPod("waiting", "600m"))
	if got := explain("waiting"); got.GetWaitsFor() != "a node: the cluster has no nodes" || len(got.GetNodes()) != 0 {
		t.Errorf("without nodes: %v", got)
	}
	clienttest.Seed(s, newNode("a", "1"), newNode("b", "2"), newNode("cordoned", "8", cordoned))
	clienttest.Seed(s, newPod("bound", "600m", on("a")), newPod("done", "2", on("b"), func(p *corev1.Pod) {
		p.Status = &corev1.PodStatus{Phase: "Succeeded"}
	}))
	clienttest.Seed(s,
		newPod("huge", "3"),
		newPod("gated", "1", func(p *corev1.Pod) { p.Spec.SchedulingGates = []*corev1.PodSchedulingGate{{Name: "x"}, {Name: "y"}} }),
		newPod("other", "1", func(p *corev1.Pod) { p.Spec.SchedulerName = "mine" }),
		newPod("deleted", "1", func(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.Now() }))
	for name, want := range map[string]struct {
		waitsFor, node string
		rows           []string // node, and the filter that refuses it
	}{
		"waiting": {"the scheduler: 1 of 3 nodes fit", "", []string{"b ", "a NodeResourcesFit", "cordoned NodeUnschedulable"}},
		// Rated as if it were not bound: with its own 600m twice it would not fit.
		"bound": {"", "a", []string{"b ", "a ", "cordoned NodeUnschedulable"}},
		"huge": {"a change of a node or of the pod: no node fits", "",
			[]string{"a NodeResourcesFit", "b NodeResourcesFit", "cordoned NodeUnschedulable"}},
		"gated":   {"its scheduling gates to be removed: x, y", "", nil},
		"other":   {`another scheduler, "mine"; this one is "default-scheduler"`, "", nil},
		"deleted": {"nothing: it is being deleted", "", nil},
	} {
		got := explain(name)
		if got.GetNodeName() != want.node || !strings.HasPrefix(got.GetWaitsFor(), want.waitsFor) ||
			(want.waitsFor == "") != (got.GetWaitsFor() == "") {
			t.Errorf("%s: on %q, waits for %q", name, got.GetNodeName(), got.GetWaitsFor())
		}
		if want.rows == nil {
			continue
		}
		var rows []string
		for _, r := range got.GetNodes() {
			rows = append(rows, r.GetNodeName()+" "+r.GetRefusedBy())
			if (r.GetRefusedBy() == "") != (len(r.GetScores()) >= 3) || (r.GetRefusedBy() == "") != (r.GetReason() == "") {
				t.Errorf("%s: row %v", name, r)
			}
		}
		if strings.Join(rows, ", ") != strings.Join(want.rows, ", ") {
			t.Errorf("%s: rows %q, want %q", name, rows, want.rows)
		}
	}
	if _, err := e.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: "gone"}); !apierr.IsNotFound(err) {
		t.Errorf("a pod that does not exist: %v", err)
	}
	if _, err := e.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default"}); err == nil ||
		!strings.Contains(err.Error(), "namespace and name of the pod are required") {
		t.Errorf("no name: %v", err)
	}
}
