package framework

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// RequiredNodes are the nodes that a pod may run on by spec.nodeSelector and by the required terms
// of its node affinity. The zero value is all nodes.
type RequiredNodes struct {
	selector NodeTerm   // spec.nodeSelector
	terms    []NodeTerm // of which one must hold
	affinity bool       // there are terms
}

// NodeTerm holds conditions on one node, all of which must hold. A term without conditions holds
// for no node.
type NodeTerm struct {
	conditions []nodeCondition
}

// WeightedNodeTerm is a preferred term of a node affinity.
type WeightedNodeTerm struct {
	// NodeTerm chooses the nodes, and Weight is what a match is worth, 1 to 100.
	NodeTerm
	Weight int32
}

// nodeCondition is a condition on a label of a node, or on its name.
type nodeCondition struct {
	requirement *labels.Requirement
	onName      bool // of the field metadata.name
	err         error
}

// nodeName is the only field that conditions know.
const nodeName = "metadata.name"

var nodeOperators = map[string]selection.Operator{
	object.OpIn: selection.In, object.OpNotIn: selection.NotIn, object.OpExists: selection.Exists,
	object.OpDoesNotExist: selection.DoesNotExist, object.OpGt: selection.GreaterThan, object.OpLt: selection.LessThan,
}

// requiredNodes reads what a pod requires of its node.
func requiredNodes(spec *corev1.PodSpec) RequiredNodes {
	var r RequiredNodes
	for _, key := range slices.Sorted(maps.Keys(spec.GetNodeSelector())) {
		r.selector.add(key, selection.Equals, []string{spec.GetNodeSelector()[key]}, false)
	}
	if required := spec.GetAffinity().GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution(); required != nil {
		r.affinity = true
		for _, t := range required.GetNodeSelectorTerms() {
			r.terms = append(r.terms, newNodeTerm(t))
		}
	}
	return r
}

func preferredNodes(spec *corev1.PodSpec) []WeightedNodeTerm {
	var all []WeightedNodeTerm
	for _, t := range spec.GetAffinity().GetNodeAffinity().GetPreferredDuringSchedulingIgnoredDuringExecution() {
		all = append(all, WeightedNodeTerm{newNodeTerm(t.GetPreference()), t.GetWeight()})
	}
	return all
}

func newNodeTerm(from *corev1.NodeSelectorTerm) NodeTerm {
	var t NodeTerm
	for _, r := range from.GetMatchExpressions() {
		t.add(r.GetKey(), nodeOperators[r.GetOperator()], r.GetValues(), false)
	}
	for _, r := range from.GetMatchFields() {
		t.add(r.GetKey(), nodeOperators[r.GetOperator()], r.GetValues(), true)
	}
	return t
}

// add adds a condition. One that is invalid, which validation refuses, never holds.
func (t *NodeTerm) add(key string, op selection.Operator, values []string, field bool) {
	c := nodeCondition{onName: field}
	c.requirement, c.err = labels.NewRequirement(key, op, values)
	if field && key != nodeName {
		c.err = fmt.Errorf("nodes have no field %s that affinity knows", key)
	}
	t.conditions = append(t.conditions, c)
}

func (c *nodeCondition) holds(n *Node) bool {
	switch {
	case c.err != nil:
		return false
	case c.onName:
		return c.requirement.Matches(labels.Set{nodeName: n.Name})
	}
	return c.requirement.Matches(labels.Set(n.Labels))
}

// Matches reports whether the term holds for a node.
func (t NodeTerm) Matches(n *Node) bool {
	for i := range t.conditions {
		if !t.conditions[i].holds(n) {
			return false
		}
	}
	return len(t.conditions) > 0
}

// unmet says which condition does not hold, and what the node has instead.
func (t NodeTerm) unmet(n *Node) string {
	for i := range t.conditions {
		c := &t.conditions[i]
		switch value, has := n.Labels[c.key()]; {
		case c.holds(n):
		case c.err != nil:
			return c.err.Error()
		case c.onName:
			return fmt.Sprintf("%s, the node is %s", c.requirement, n.Name)
		case has:
			return fmt.Sprintf("%s, the node has %q", c.requirement, value)
		default:
			return fmt.Sprintf("%s, the node has no such label", c.requirement)
		}
	}
	return "a term without conditions, which no node meets"
}

func (c *nodeCondition) key() string {
	if c.requirement == nil {
		return ""
	}
	return c.requirement.Key()
}

// All reports whether the pod may run on every node.
func (r *RequiredNodes) All() bool { return len(r.selector.conditions) == 0 && !r.affinity }

// Matches reports whether the pod may run on a node.
func (r *RequiredNodes) Matches(n *Node) bool {
	if len(r.selector.conditions) > 0 && !r.selector.Matches(n) {
		return false
	}
	return !r.affinity || slices.ContainsFunc(r.terms, func(t NodeTerm) bool { return t.Matches(n) })
}

// Unmet says what a node lacks that Matches refuses.
func (r *RequiredNodes) Unmet(n *Node) string {
	if len(r.selector.conditions) > 0 && !r.selector.Matches(n) {
		return r.selector.unmet(n)
	}
	if len(r.terms) == 0 {
		return "a node affinity without terms, which no node meets"
	}
	terms := make([]string, len(r.terms))
	for i, t := range r.terms {
		terms[i] = t.unmet(n)
	}
	return strings.Join(terms, "; or ")
}

// Names returns the names of the only nodes that the pod may run on, sorted; ok is false when it
// does not name nodes. Names that exclude each other leave none.
func (r *RequiredNodes) Names() (names []string, ok bool) {
	for _, t := range r.terms {
		of, named := t.names()
		if !named {
			return nil, false
		}
		names = append(names, of...)
	}
	slices.Sort(names)
	return slices.Compact(names), len(r.terms) > 0
}

func (t NodeTerm) names() (names []string, ok bool) {
	for i := range t.conditions {
		c := &t.conditions[i]
		if !c.onName || c.err != nil || c.requirement.Operator() != selection.In {
			continue
		}
		values := c.requirement.ValuesUnsorted()
		if ok {
			names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(values, n) })
		} else {
			names, ok = values, true
		}
	}
	return names, ok
}
