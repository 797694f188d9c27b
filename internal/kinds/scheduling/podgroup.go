package scheduling

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
)

const (
	// MaxMinCount is the highest minCount of a gang: its pods are bound in one transaction, which
	// holds no more operations.
	MaxMinCount = 500

	// PodGroupScheduled is the condition of a group that says whether it has its nodes.
	PodGroupScheduled = "PodGroupScheduled"
	// GroupDisruptionTarget is the condition of a group that is about to be deleted.
	GroupDisruptionTarget = "DisruptionTarget"

	// DisruptPodGroup is the disruptionMode of groups whose pods are preempted together.
	DisruptPodGroup = "PodGroup"
)

var (
	podGroupRules = rules.For[*schedulingv1alpha2.PodGroup]{
		Name: rules.NameIsSubdomain,
		Check: func(g *schedulingv1alpha2.PodGroup, c *rules.Checker) {
			p, spec := field.NewPath("spec"), g.GetSpec()
			if ref := spec.GetPodGroupTemplateRef(); ref != nil && ref.GetWorkload() == nil {
				c.Invalid(p.Child("podGroupTemplateRef"), "", "must specify one of: `workload`")
			}
			checkPolicy(c, p.Child("schedulingPolicy"), spec.GetSchedulingPolicy())
			checkClaims(c, p.Child("resourceClaims"), spec.GetResourceClaims())
		},
		CheckStatus: checkPodGroupStatus,
		Warn: func(g *schedulingv1alpha2.PodGroup) []string {
			return warnDisruptionMode(field.NewPath("spec"), g.GetSpec().GetDisruptionMode())
		},
	}
	podGroupColumns = []scheme.Column{
		column.New("POLICY", func(g *schedulingv1alpha2.PodGroup) string {
			if IsGang(g) {
				return "Gang"
			}
			return "Basic"
		}),
		column.New("WORKLOAD", func(g *schedulingv1alpha2.PodGroup) string {
			return column.OrNone(g.GetSpec().GetPodGroupTemplateRef().GetWorkload().GetWorkloadName())
		}),
		column.New("STATUS", podGroupStatus),
		column.AgeColumn,
	}
)

// IsGang reports whether the pods of a group are placed together or not at all.
func IsGang(g *schedulingv1alpha2.PodGroup) bool {
	return g.GetSpec().GetSchedulingPolicy().GetGang() != nil
}

func podGroupStatus(g *schedulingv1alpha2.PodGroup) string {
	all := g.GetStatus().GetConditions()
	scheduled := condition.Find(all, PodGroupScheduled)
	if disrupted := condition.Find(all, GroupDisruptionTarget); disrupted != nil {
		return disrupted.GetReason()
	}
	switch {
	case scheduled == nil:
		return "Pending"
	case scheduled.GetStatus() == condition.True:
		return "Scheduled"
	}
	return "Unschedulable"
}

func checkPolicy(c *rules.Checker, p *field.Path, policy *schedulingv1alpha2.PodGroupSchedulingPolicy) {
	switch {
	case policy.GetBasic() == nil && policy.GetGang() == nil:
		c.Invalid(p, "", "must specify one of: `basic`, `gang`")
	case policy.GetBasic() != nil && policy.GetGang() != nil:
		c.Invalid(p, "{`basic`, `gang`}", "must specify exactly one of: `basic`, `gang`")
	}
	if n := policy.GetGang().GetMinCount(); n > MaxMinCount {
		c.Invalid(p.Child("gang", "minCount"), n, fmt.Sprintf(
			"must be at most %d: the pods of a gang are bound in one transaction, which holds no more", MaxMinCount))
	}
}

func checkClaims(c *rules.Checker, p *field.Path, claims []*schedulingv1alpha2.PodGroupResourceClaim) {
	const fields = "`resourceClaimName`, `resourceClaimTemplateName`"
	for i, claim := range claims {
		switch {
		case claim.ResourceClaimName == nil && claim.ResourceClaimTemplateName == nil:
			c.Invalid(p.Index(i), "", "must specify one of: "+fields)
		case claim.ResourceClaimName != nil && claim.ResourceClaimTemplateName != nil:
			c.Invalid(p.Index(i), "{"+fields+"}", "must specify exactly one of: "+fields)
		}
	}
}

func checkPodGroupStatus(now, _ *schedulingv1alpha2.PodGroup, c *rules.Checker) {
	p := field.NewPath("status")
	c.Conditions(p.Child("conditions"), now.GetStatus().GetConditions())
	claims := map[string]bool{}
	for _, claim := range now.GetSpec().GetResourceClaims() {
		claims[claim.GetName()] = true
	}
	for i, s := range now.GetStatus().GetResourceClaimStatuses() {
		if !claims[s.GetName()] {
			c.Invalid(p.Child("resourceClaimStatuses").Index(i).Child("name"), s.GetName(),
				"must match the name of an entry in `spec.resourceClaims`")
		}
	}
}

// warnDisruptionMode returns the warning about a mode without effect.
func warnDisruptionMode(p *field.Path, mode string) []string {
	if mode != DisruptPodGroup {
		return nil
	}
	return []string{p.Child("disruptionMode").String() + ": PodGroup has no effect: pods are preempted one by one"}
}
