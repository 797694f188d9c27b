// Package policy has the kinds of the group policy.
package policy

import (
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

var (
	podDisruptionBudgetRules = rules.For[*policyv1.PodDisruptionBudget]{
		Name:  rules.NameIsSubdomain,
		Check: checkPodDisruptionBudget,
		CheckStatus: func(now, _ *policyv1.PodDisruptionBudget, c *rules.Checker) {
			c.Conditions(field.NewPath("status", "conditions"), now.GetStatus().GetConditions())
		},
	}
	podDisruptionBudgetColumns = []scheme.Column{
		column.At(".spec.minAvailable", column.New("MIN AVAILABLE", func(b *policyv1.PodDisruptionBudget) string {
			return limitText(b.GetSpec().GetMinAvailable())
		})),
		column.At(".spec.maxUnavailable", column.New("MAX UNAVAILABLE", func(b *policyv1.PodDisruptionBudget) string {
			return limitText(b.GetSpec().GetMaxUnavailable())
		})),
		column.At(".status.disruptionsAllowed", column.New("ALLOWED DISRUPTIONS", func(b *policyv1.PodDisruptionBudget) string {
			return strconv.Itoa(int(b.GetStatus().GetDisruptionsAllowed()))
		})),
		column.AgeColumn,
	}
)

func limitText(v *metav1.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return fmt.Sprint(object.IntOrStringText(v))
}

func checkPodDisruptionBudget(b *policyv1.PodDisruptionBudget, c *rules.Checker) {
	p, spec := field.NewPath("spec"), b.GetSpec()
	if spec.GetMinAvailable() != nil && spec.GetMaxUnavailable() != nil {
		c.Invalid(p, field.OmitValueType{}, "minAvailable and maxUnavailable cannot be both set")
	}
	checkAtMostAll(c, p.Child("minAvailable"), spec.GetMinAvailable())
	checkAtMostAll(c, p.Child("maxUnavailable"), spec.GetMaxUnavailable())
	c.LabelSelector(p.Child("selector"), spec.GetSelector())
}

func checkAtMostAll(c *rules.Checker, p *field.Path, v *metav1.IntOrString) {
	if n, percent, ok := object.PercentOrCount(v); v != nil && ok && percent && n > 100 {
		c.Invalid(p, object.IntOrStringText(v), "must not be greater than 100%")
	}
}
