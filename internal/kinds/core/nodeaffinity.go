package core

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// FieldNodeName is the field of nodes that the affinity of a pod can select by.
const FieldNodeName = "metadata.name"

// RequiredNodes are the nodes that a pod may run on by its node selector and the required terms of
// its node affinity. The zero value is all nodes.
type RequiredNodes struct {
	selector labels.Selector
	terms    []nodeTerm // of which one must hold, nil for no affinity
}

// nodeTerm holds conditions on the labels and on the name of a node. Both are nil in a term that
// holds for no node.
type nodeTerm struct{ labels, name labels.Selector }

// RequiredNodesOf reads the required nodes of a pod. Conditions that validation refuses hold for no
// node.
func RequiredNodesOf(spec *corev1.PodSpec) RequiredNodes {
	r := RequiredNodes{selector: labels.SelectorFromSet(spec.GetNodeSelector())}
	required := spec.GetAffinity().GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution()
	if required == nil {
		return r
	}
	r.terms = []nodeTerm{}
	for _, t := range required.GetNodeSelectorTerms() {
		onLabels, ok := nodeSelector(t.GetMatchExpressions())
		onName, valid := nodeSelector(t.GetMatchFields())
		for _, f := range t.GetMatchFields() {
			valid = valid && f.GetKey() == FieldNodeName
		}
		if ok && valid && len(t.GetMatchExpressions())+len(t.GetMatchFields()) > 0 {
			r.terms = append(r.terms, nodeTerm{onLabels, onName})
		}
	}
	return r
}

var nodeOperators = map[string]selection.Operator{
	object.OpIn: selection.In, object.OpNotIn: selection.NotIn, object.OpExists: selection.Exists,
	object.OpDoesNotExist: selection.DoesNotExist, object.OpGt: selection.GreaterThan, object.OpLt: selection.LessThan,
}

// nodeSelector makes a selector of the conditions of a term, false when one is invalid.
func nodeSelector(conditions []*corev1.NodeSelectorRequirement) (labels.Selector, bool) {
	s := labels.NewSelector()
	for _, c := range conditions {
		r, err := labels.NewRequirement(c.GetKey(), nodeOperators[c.GetOperator()], c.GetValues())
		if err != nil {
			return nil, false
		}
		s = s.Add(*r)
	}
	return s, true
}

// Include reports whether the pod may run on a node.
func (r RequiredNodes) Include(n *corev1.Node) bool {
	m := n.GetMetadata()
	if r.selector != nil && !r.selector.Matches(labels.Set(m.GetLabels())) {
		return false
	}
	name := labels.Set{FieldNodeName: m.GetName()}
	return r.terms == nil || slices.ContainsFunc(r.terms, func(t nodeTerm) bool {
		return t.labels.Matches(labels.Set(m.GetLabels())) && t.name.Matches(name)
	})
}
