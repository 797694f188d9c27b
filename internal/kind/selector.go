package kind

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Operators of label selectors.
const (
	OpIn           = "In"
	OpNotIn        = "NotIn"
	OpExists       = "Exists"
	OpDoesNotExist = "DoesNotExist"
	// OpGt and OpLt compare numbers; only node selectors know them.
	OpGt = "Gt"
	OpLt = "Lt"
)

// LabelSelector converts a selector as objects hold it. A nil selector selects nothing, an empty
// one everything.
func LabelSelector(s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return labels.Nothing(), nil
	}
	if len(s.GetMatchLabels()) == 0 && len(s.GetMatchExpressions()) == 0 {
		return labels.Everything(), nil
	}
	var all labels.Requirements
	for _, key := range sorted(s.GetMatchLabels()) {
		r, err := labels.NewRequirement(key, selection.Equals, []string{s.GetMatchLabels()[key]})
		if err != nil {
			return nil, fmt.Errorf("match label %s: %w", key, err)
		}
		all = append(all, *r)
	}
	for _, e := range s.GetMatchExpressions() {
		var op selection.Operator
		switch e.GetOperator() {
		case OpIn:
			op = selection.In
		case OpNotIn:
			op = selection.NotIn
		case OpExists:
			op = selection.Exists
		case OpDoesNotExist:
			op = selection.DoesNotExist
		default:
			return nil, fmt.Errorf("match expression on %s: %q is not a label selector operator", e.GetKey(), e.GetOperator())
		}
		r, err := labels.NewRequirement(e.GetKey(), op, e.GetValues())
		if err != nil {
			return nil, fmt.Errorf("match expression on %s: %w", e.GetKey(), err)
		}
		all = append(all, *r)
	}
	return labels.NewSelector().Add(all...), nil
}

// FormatLabelSelector formats a selector in the syntax of -l; <none> for one that is not set, empty
// or invalid.
func FormatLabelSelector(s *metav1.LabelSelector) string {
	sel, err := LabelSelector(s)
	if err != nil || sel.String() == "" {
		return none
	}
	return sel.String()
}

// labelSelector checks that the values of a selector fit its operators.
func (c *checker) labelSelector(p *field.Path, s *metav1.LabelSelector) {
	for i, e := range s.GetMatchExpressions() {
		at := p.Child("matchExpressions").Index(i)
		switch e.GetOperator() {
		case OpIn, OpNotIn:
			if len(e.GetValues()) == 0 {
				c.required(at.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case OpExists, OpDoesNotExist:
			if len(e.GetValues()) > 0 {
				c.forbidden(at.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		default:
			c.invalid(at.Child("operator"), e.GetOperator(), "not a valid selector operator")
		}
	}
}
