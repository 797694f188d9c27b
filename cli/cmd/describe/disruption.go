package describe

import (
	"strconv"

	"github.com/xebec-project/xebec/cli/printer"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

func (r *report) podDisruptionBudget(b *policyv1.PodDisruptionBudget) {
	s, status := b.GetSpec(), b.GetStatus()
	r.metadata(b)
	r.labels(b)
	r.ends(b)
	if s.GetMinAvailable() != nil {
		r.field("Min available", printer.IntOrString(s.GetMinAvailable()))
	}
	if s.GetMaxUnavailable() != nil {
		r.field("Max unavailable", printer.IntOrString(s.GetMaxUnavailable()))
	}
	// A budget without a selector selects no pods, and one with an empty selector all of them.
	selects := "no pods"
	if s.GetSelector() != nil {
		selects = selected("pods", s.GetSelector()) + " in this namespace"
	}
	r.field("Selects", selects)
	r.optional("Unhealthy pods", s.GetUnhealthyPodEvictionPolicy())
	r.group("Status", func() {
		for _, row := range []struct {
			name string
			n    int32
		}{
			{"Allowed disruptions", status.GetDisruptionsAllowed()}, {"Current", status.GetCurrentHealthy()},
			{"Desired", status.GetDesiredHealthy()}, {"Total", status.GetExpectedPods()},
		} {
			r.field(row.name, strconv.Itoa(int(row.n)))
		}
	})
	conditions(r, status.GetConditions())
}
