package rules

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// LabelSelector checks that the values of a selector fit its operators.
func (c *Checker) LabelSelector(p *field.Path, s *metav1.LabelSelector) {
	for i, e := range s.GetMatchExpressions() {
		at := p.Child("matchExpressions").Index(i)
		switch e.GetOperator() {
		case object.OpIn, object.OpNotIn:
			if len(e.GetValues()) == 0 {
				c.Required(at.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case object.OpExists, object.OpDoesNotExist:
			if len(e.GetValues()) > 0 {
				c.Forbidden(at.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		default:
			c.Invalid(at.Child("operator"), e.GetOperator(), "not a valid selector operator")
		}
	}
}
