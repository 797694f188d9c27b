package schema

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// compiler compiles the plans of a message and of all messages below it. Messages may be recursive.
type compiler struct {
	made map[protoreflect.FullName]*plan
}

func (c *compiler) compile(d protoreflect.MessageDescriptor) *plan {
	if p, ok := c.made[d.FullName()]; ok {
		return p
	}
	p := &plan{}
	c.made[d.FullName()] = p
	rules := MessageRulesOf(d)
	p.missing, p.further = rules.GetOneOfMissing(), rules.GetOneOfFurther()
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if p.missing != "" && f.Kind() == protoreflect.MessageKind && !f.IsList() && !f.IsMap() {
			p.oneOf = append(p.oneOf, f)
		}
		s := c.step(f)
		if s.validates() {
			p.checks = append(p.checks, s)
		}
		if s.value.IsValid() || s.below != nil && s.shape != shapeMap && len(s.below.defaults) > 0 {
			p.defaults = append(p.defaults, s)
		}
	}
	return p
}

func (c *compiler) step(f protoreflect.FieldDescriptor) *step {
	s := &step{field: f, name: f.JSONName(), rules: RulesOf(f), shape: shapeOf(f)}
	if s.rules.GetInline() {
		s.name = ""
	}
	s.check = scalarCheckOf(s.rules)
	if s.shape == shapeMap && isObject(f.MapValue().Message()) {
		s.below = c.compile(f.MapValue().Message())
	}
	if (s.shape == shapeMessage || s.shape == shapeMessages) && s.rules.GetRefused() == "" {
		s.below = c.compile(f.Message())
		for _, name := range s.rules.GetUnique() {
			key := f.Message().Fields().ByJSONName(name)
			if key == nil {
				panic(fmt.Sprintf("schema: %s: unique names no field %q", f.FullName(), name))
			}
			s.unique = append(s.unique, key)
		}
	}
	if text := s.rules.GetDefaultJson(); text != "" {
		value, err := valueOf(f, text)
		if err != nil {
			panic(fmt.Sprintf("schema: default of %s: %v", f.FullName(), err))
		}
		if f.HasPresence() || !value.Equal(f.Default()) {
			s.value = value
		}
	}
	return s
}

// validates reports whether the field, or a field below it, has rules.
func (s *step) validates() bool {
	r := s.rules
	own := r.GetRequired() || r.GetRefused() != "" || r.GetMaxItems() > 0 || len(r.GetUnique()) > 0 ||
		r.GetKeyFormat() != metav1.Format_FORMAT_UNSPECIFIED || s.check.any
	return own || s.below.validates()
}

func (p *plan) validates() bool {
	return p != nil && (len(p.checks) > 0 || len(p.oneOf) > 0)
}

func shapeOf(f protoreflect.FieldDescriptor) shape {
	number := f.Kind() == protoreflect.Int32Kind || f.Kind() == protoreflect.Int64Kind
	switch {
	case f.IsMap():
		return shapeMap
	case f.Message() != nil && !isObject(f.Message()):
		if f.IsList() {
			return shapeUnchecked
		}
		return shapeLeaf
	case f.IsList() && f.Message() != nil:
		return shapeMessages
	case f.Message() != nil:
		return shapeMessage
	case f.IsList() && f.Kind() == protoreflect.StringKind:
		return shapeStrings
	case f.IsList() && number:
		return shapeNumbers
	case f.IsList():
		return shapeUnchecked
	case f.Kind() == protoreflect.StringKind:
		return shapeString
	case number:
		return shapeNumber
	}
	return shapeOther
}

// isObject reports whether a message is an object of its fields in JSON, not a single value. It is
// false for nil.
func isObject(d protoreflect.MessageDescriptor) bool {
	return d != nil && d.FullName() != "google.protobuf.Timestamp" &&
		MessageRulesOf(d).GetJsonForm() == metav1.JsonForm_JSON_FORM_UNSPECIFIED
}

// valueOf parses the default of a field. A message can only default to an empty one, unless it is
// an int-or-string or a quantity.
func valueOf(f protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return protoreflect.Value{}, err
	}
	switch v := v.(type) {
	case string:
		switch {
		case f.Kind() == protoreflect.StringKind:
			return protoreflect.ValueOfString(v), nil
		case f.Message() != nil && MessageRulesOf(f.Message()).GetJsonForm() == metav1.JsonForm_JSON_FORM_QUANTITY:
			return leaf(&metav1.Quantity{String_: v}), nil
		case f.Message() != nil && MessageRulesOf(f.Message()).GetJsonForm() == metav1.JsonForm_JSON_FORM_INT_OR_STRING:
			return leaf(&metav1.IntOrString{Type: 1, StrVal: v}), nil
		}
	case bool:
		if f.Kind() == protoreflect.BoolKind {
			return protoreflect.ValueOfBool(v), nil
		}
	case float64:
		switch f.Kind() {
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(int32(v)), nil
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(int64(v)), nil
		}
	case map[string]any:
		if f.Message() != nil && !f.IsList() && !f.IsMap() && len(v) == 0 {
			return protoreflect.ValueOfBool(true), nil // any valid value: the message is made for each object
		}
	}
	return protoreflect.Value{}, fmt.Errorf("%s is no value for a field of kind %s", text, f.Kind())
}

func leaf(m proto.Message) protoreflect.Value {
	return protoreflect.ValueOfMessage(m.ProtoReflect())
}
