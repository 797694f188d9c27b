package scheduling

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
)

var (
	workloadRules = rules.For[*schedulingv1alpha2.Workload]{
		Name: rules.NameIsSubdomain,
		Check: func(w *schedulingv1alpha2.Workload, c *rules.Checker) {
			for i, t := range w.GetSpec().GetPodGroupTemplates() {
				p := templatePath(i)
				checkPolicy(c, p.Child("schedulingPolicy"), t.GetSchedulingPolicy())
				checkClaims(c, p.Child("resourceClaims"), t.GetResourceClaims())
			}
		},
		Warn: func(w *schedulingv1alpha2.Workload) []string {
			var warnings []string
			for i, t := range w.GetSpec().GetPodGroupTemplates() {
				warnings = append(warnings, warnDisruptionMode(templatePath(i), t.GetDisruptionMode())...)
			}
			return warnings
		},
	}
	workloadColumns = []scheme.Column{column.AgeColumn}
)

func templatePath(i int) *field.Path { return field.NewPath("spec", "podGroupTemplates").Index(i) }
