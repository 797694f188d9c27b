// Package schema describes the fields of objects to people: their JSON names, their types, rules
// and comments.
package schema

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/schema"
	"github.com/xebec-project/xebec/internal/schema/comments"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Field is one field of an object, or the object itself.
type Field struct {
	// Name is the field's name in JSON, or the kind's.
	Name string
	// Type is how its value is written: string, integer, Object, []Container, map[string]Quantity, ...
	Type string
	// Comment is what the field means; TypeComment is what its type means, empty for scalars.
	Comment, TypeComment string
	// NoEffect says why setting the field does nothing yet; empty when it does something.
	NoEffect string
	// Refused says why objects that set the field are refused; empty when they are not.
	Refused string
	// Required fields must be set.
	Required bool
	// Enum are the accepted values, or those of each element of a list; any when empty.
	Enum []string
	// Range are the bounds of a number: "1 to 65535", "at least 0". Empty when there are none.
	Range string
	// Default is the value, as JSON, of a field that is not set; empty when it has none.
	Default string

	message protoreflect.MessageDescriptor // nil for a type without fields
	comment func(protoreflect.Descriptor) string
}

// Of returns a kind as the root of its fields.
func Of(k *scheme.Kind) (Field, error) {
	compiledIn, err := comments.All()
	if err != nil {
		return Field{}, err
	}
	comment := func(d protoreflect.Descriptor) string {
		return cmp.Or(k.Comments[d.FullName()], compiledIn[d.FullName()])
	}
	m := k.New().ProtoReflect().Descriptor()
	return Field{Name: k.Name, Type: "Object", Comment: comment(m), message: m, comment: comment}, nil
}

// Fields returns the fields of a field, in the order of the proto; nil when it has none.
func (f Field) Fields() []Field {
	if f.message == nil {
		return nil
	}
	var out []Field
	for i := range f.message.Fields().Len() {
		d := f.message.Fields().Get(i)
		o := schema.RulesOf(d)
		if o.GetInline() && d.Message() != nil {
			out = append(out, Field{message: d.Message(), comment: f.comment}.Fields()...)
			continue
		}
		child := Field{
			Name: d.JSONName(), Comment: f.comment(d), NoEffect: o.GetNoEffect(), Refused: o.GetRefused(),
			Required: schema.Required(d), Enum: o.GetEnum(), Range: bounds(o), Default: o.GetDefaultJson(), comment: f.comment,
		}
		child.Type, child.message = describe(d)
		if child.message != nil {
			child.TypeComment = f.comment(child.message)
		}
		out = append(out, child)
	}
	return out
}

// Child returns the field of that name.
func (f Field) Child(name string) (Field, bool) {
	for _, c := range f.Fields() {
		if c.Name == name {
			return c, true
		}
	}
	return Field{}, false
}

// bounds describes the bounds of a number.
func bounds(o *metav1.FieldRules) string {
	if o == nil {
		return ""
	}
	least, most := o.Min, o.Max
	if o.GetFormat() == metav1.Format_FORMAT_PORT {
		least, most = proto.Int64(1), proto.Int64(65535)
	}
	switch {
	case least != nil && most != nil:
		return fmt.Sprintf("%d to %d", *least, *most)
	case least != nil:
		return fmt.Sprintf("at least %d", *least)
	case most != nil:
		return fmt.Sprintf("at most %d", *most)
	}
	return ""
}

// describe names a field's type and returns the message whose fields it has.
func describe(d protoreflect.FieldDescriptor) (string, protoreflect.MessageDescriptor) {
	if d.IsMap() {
		name, m := value(d.MapValue())
		return "map[string]" + name, m
	}
	name, m := value(d)
	if d.IsList() {
		return "[]" + name, m
	}
	return name, m
}

func value(d protoreflect.FieldDescriptor) (string, protoreflect.MessageDescriptor) {
	switch d.Kind() {
	case protoreflect.MessageKind:
		return message(d.Message())
	case protoreflect.BoolKind:
		return "boolean", nil
	case protoreflect.StringKind:
		return "string", nil
	case protoreflect.BytesKind:
		return "bytes in base64", nil
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return "number", nil
	}
	return "integer", nil
}

// message names a message by how JSON writes it.
func message(m protoreflect.MessageDescriptor) (string, protoreflect.MessageDescriptor) {
	if m.FullName() == "google.protobuf.Timestamp" {
		return "time, RFC 3339", nil
	}
	switch schema.MessageRulesOf(m).GetJsonForm() {
	case metav1.JsonForm_JSON_FORM_QUANTITY:
		return "quantity", nil
	case metav1.JsonForm_JSON_FORM_INT_OR_STRING:
		return "integer or string", nil
	case metav1.JsonForm_JSON_FORM_RAW:
		return "any JSON", nil
	case metav1.JsonForm_JSON_FORM_LIST:
		name, inner := describe(m.Fields().Get(0))
		return name, inner
	}
	return string(m.Name()), m
}
