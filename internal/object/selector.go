package object

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

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
	for _, key := range slices.Sorted(maps.Keys(s.GetMatchLabels())) {
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
