// Package nodeaffinity says which nodes a pod may run on by spec.nodeSelector and its node
// affinity, and which it prefers. The scheduler places pods by it, and the controller of DaemonSets
// finds by it the nodes that a set belongs on.
package nodeaffinity

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

// Required are the nodes that a pod may run on by spec.nodeSelector and by the required terms
// of its node affinity. The zero value is all nodes.
type Required struct {
	selector Term   // spec.nodeSelector
	terms    []Term // of which one must hold
	affinity bool   // there are terms
}

// Term holds conditions on one node, all of which must hold. A term without conditions holds
// for no node.
type Term struct {
	conditions []condition
}

// Preferred is a preferred term of a node affinity.
type Preferred struct {
	// Term chooses the nodes, and Weight is what a match is worth, 1 to 100.
	Term
	Weight int32
}

// condition is a condition on a label of a node, or on its name.
type condition struct {
	requirement *labels.Requirement
	onName      bool // of the field metadata.name
	err         error
}

// FieldName is the only field of a node that conditions select by.
const FieldName = "metadata.name"

var operators = map[string]selection.Operator{
	object.OpIn: selection.In, object.OpNotIn: selection.NotIn, object.OpExists: selection.Exists,
	object.OpDoesNotExist: selection.DoesNotExist, object.OpGt: selection.GreaterThan, object.OpLt: selection.LessThan,
}

// RequiredOf reads what a pod requires of its node.
func RequiredOf(spec *corev1.PodSpec) Required {
	var r Required
	for _, key := range slices.Sorted(maps.Keys(spec.GetNodeSelector())) {
		r.selector.add(key, selection.Equals, []string{spec.GetNodeSelector()[key]}, false)
	}
	if required := spec.GetAffinity().GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution(); required != nil {
		r.affinity = true
		for _, t := range required.GetNodeSelectorTerms() {
			r.terms = append(r.terms, newTerm(t))
		}
	}
	return r
}

// PreferredOf reads the preferred terms of a pod's node affinity.
func PreferredOf(spec *corev1.PodSpec) []Preferred {
	var all []Preferred
	for _, t := range spec.GetAffinity().GetNodeAffinity().GetPreferredDuringSchedulingIgnoredDuringExecution() {
		all = append(all, Preferred{newTerm(t.GetPreference()), t.GetWeight()})
	}
	return all
}

func newTerm(from *corev1.NodeSelectorTerm) Term {
	var t Term
	for _, r := range from.GetMatchExpressions() {
		t.add(r.GetKey(), operators[r.GetOperator()], r.GetValues(), false)
	}
	for _, r := range from.GetMatchFields() {
		t.add(r.GetKey(), operators[r.GetOperator()], r.GetValues(), true)
	}
	return t
}

// add adds a condition. One that is invalid, which validation refuses, never holds.
func (t *Term) add(key string, op selection.Operator, values []string, field bool) {
	c := condition{onName: field}
	c.requirement, c.err = labels.NewRequirement(key, op, values)
	if field && key != FieldName {
		c.err = fmt.Errorf("nodes have no field %s that affinity knows", key)
	}
	t.conditions = append(t.conditions, c)
}

func (c *condition) holds(name string, set labels.Set) bool {
	switch {
	case c.err != nil:
		return false
	case c.onName:
		return c.requirement.Matches(labels.Set{FieldName: name})
	}
	return c.requirement.Matches(set)
}

// Matches reports whether the term holds for a node.
func (t Term) Matches(name string, set labels.Set) bool {
	for i := range t.conditions {
		if !t.conditions[i].holds(name, set) {
			return false
		}
	}
	return len(t.conditions) > 0
}

// unmet says which condition does not hold, and what the node has instead.
func (t Term) unmet(name string, set labels.Set) string {
	for i := range t.conditions {
		c := &t.conditions[i]
		switch value, has := set[c.key()]; {
		case c.holds(name, set):
		case c.err != nil:
			return c.err.Error()
		case c.onName:
			return fmt.Sprintf("%s, the node is %s", c.requirement, name)
		case has:
			return fmt.Sprintf("%s, the node has %q", c.requirement, value)
		default:
			return fmt.Sprintf("%s, the node has no such label", c.requirement)
		}
	}
	return "a term without conditions, which no node meets"
}

func (c *condition) key() string {
	if c.requirement == nil {
		return ""
	}
	return c.requirement.Key()
}

// All reports whether the pod may run on every node.
func (r *Required) All() bool { return len(r.selector.conditions) == 0 && !r.affinity }

// Matches reports whether the pod may run on a node.
func (r *Required) Matches(name string, set labels.Set) bool {
	if len(r.selector.conditions) > 0 && !r.selector.Matches(name, set) {
		return false
	}
	return !r.affinity || slices.ContainsFunc(r.terms, func(t Term) bool { return t.Matches(name, set) })
}

// Unmet says what a node lacks that Matches refuses.
func (r *Required) Unmet(name string, set labels.Set) string {
	if len(r.selector.conditions) > 0 && !r.selector.Matches(name, set) {
		return r.selector.unmet(name, set)
	}
	if len(r.terms) == 0 {
		return "a node affinity without terms, which no node meets"
	}
	terms := make([]string, len(r.terms))
	for i, t := range r.terms {
		terms[i] = t.unmet(name, set)
	}
	return strings.Join(terms, "; or ")
}

// Names returns the names of the only nodes that the pod may run on, sorted; ok is false when it
// does not name nodes. Names that exclude each other leave none.
func (r *Required) Names() (names []string, ok bool) {
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

func (t Term) names() (names []string, ok bool) {
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
