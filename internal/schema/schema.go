// Package schema defaults and validates messages by the options of their fields
// (xebec.meta.v1.FieldRules), with the messages of Kubernetes. Rules that span fields are Go code:
// see internal/kinds.
//
// The rules of a message are compiled once, on first use, to a plan of the fields that have rules
// or contain such fields.
package schema

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// RulesOf returns the rules of a field; nil when it has none.
func RulesOf(f protoreflect.FieldDescriptor) *metav1.FieldRules {
	rules, _ := proto.GetExtension(f.Options(), metav1.E_Field).(*metav1.FieldRules)
	return rules
}

// MessageRulesOf returns the rules of a message; nil when it has none.
func MessageRulesOf(m protoreflect.MessageDescriptor) *metav1.MessageRules {
	rules, _ := proto.GetExtension(m.Options(), metav1.E_Message).(*metav1.MessageRules)
	return rules
}

// Required reports whether a field is required of a complete message, as OpenAPI and explain state
// it: validation refuses the message without it, or Kubernetes' documents call it required.
func Required(f protoreflect.FieldDescriptor) bool {
	m, ok := f.Parent().(protoreflect.MessageDescriptor)
	return RulesOf(f).GetRequired() || ok && slices.Contains(MessageRulesOf(m).GetRequiredFields(), f.JSONName())
}

// plan has the rules of one type of message. Plans are shared and immutable.
type plan struct {
	// checks are the fields to validate, and defaults those to default, in the order of the proto.
	checks   []*step
	defaults []*step
	// oneOf are the fields of which exactly one is set, and missing and further the details of errors
	// about that.
	oneOf            []protoreflect.FieldDescriptor
	missing, further string
}

// step has the rules of one field.
type step struct {
	field protoreflect.FieldDescriptor
	// name is the field's name in JSON, empty when its members are inlined in the parent's JSON
	// object.
	name string
	// shape is the type of the field's value.
	shape shape
	rules *metav1.FieldRules
	check scalarCheck
	// value is the default of the field, invalid when it has none.
	value protoreflect.Value
	// unique are the fields in which the elements of a list must differ.
	unique []protoreflect.FieldDescriptor
	// below is the plan of the message in the field; nil when it has none.
	below *plan
}

type shape uint8

const (
	shapeString shape = iota
	shapeNumber
	shapeOther // bools and bytes
	shapeMessage
	shapeLeaf // messages that are single values in JSON
	shapeStrings
	shapeNumbers
	shapeMessages
	shapeMap
	shapeUnchecked
)

var (
	plansLock sync.Mutex
	plans     sync.Map // protoreflect.MessageDescriptor -> *plan
)

// planOf returns the plan for messages of a type.
func planOf(d protoreflect.MessageDescriptor) *plan {
	if p, ok := plans.Load(d); ok {
		return p.(*plan)
	}
	plansLock.Lock()
	defer plansLock.Unlock()
	c := compiler{made: map[protoreflect.FullName]*plan{}}
	p := c.compile(d)
	cached, _ := plans.LoadOrStore(d, p)
	return cached.(*plan)
}
