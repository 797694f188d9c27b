package apply

import (
	"encoding/json"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/structured-merge-diff/v6/schema"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const timestampName = protoreflect.FullName("google.protobuf.Timestamp")

// schemaBuilder turns message descriptors into the type definitions that structured-merge-diff
// merges by. The list and map semantics come from the options on the fields (see
// xebec/meta/v1/options.proto).
type schemaBuilder struct {
	seen  map[protoreflect.FullName]bool
	types []schema.TypeDef
}

// addKind adds a kind's message and all it reaches. Kinds carry apiVersion and kind in JSON, which
// no message declares.
func (b *schemaBuilder) addKind(md protoreflect.MessageDescriptor) error {
	if err := b.addMessage(md); err != nil {
		return err
	}
	def := &b.types[b.index(md.FullName())]
	str := scalarRef(schema.String)
	def.Map.Fields = append(def.Map.Fields, schema.StructField{Name: "apiVersion", Type: str}, schema.StructField{Name: "kind", Type: str})
	return nil
}

func (b *schemaBuilder) index(name protoreflect.FullName) int {
	for i := range b.types {
		if b.types[i].Name == string(name) {
			return i
		}
	}
	return -1
}

func (b *schemaBuilder) addMessage(md protoreflect.MessageDescriptor) error {
	if b.seen[md.FullName()] {
		return nil
	}
	b.seen[md.FullName()] = true
	def := schema.TypeDef{Name: string(md.FullName())}
	rules := messageRules(md)
	switch {
	case md.FullName() == timestampName:
		def.Scalar = scalar(schema.String)
	case rules.GetJsonForm() == metav1.JsonForm_JSON_FORM_LIST:
		elem, err := b.valueRef(md.Fields().Get(0))
		if err != nil {
			return err
		}
		def.List = &schema.List{ElementType: elem, ElementRelationship: schema.Atomic}
	case rules.GetJsonForm() != metav1.JsonForm_JSON_FORM_UNSPECIFIED:
		def.Scalar = scalar(schema.Untyped)
	default:
		def.Map = &schema.Map{}
		if rules.GetAtomic() {
			def.Map.ElementRelationship = schema.Atomic
		}
		if err := b.addFields(def.Map, md); err != nil {
			return err
		}
		def.Map.Fields = append(def.Map.Fields, schema.StructField{Name: occurrence, Type: scalarRef(schema.Numeric)})
	}
	b.types = append(b.types, def)
	return nil
}

func (b *schemaBuilder) addFields(m *schema.Map, md protoreflect.MessageDescriptor) error {
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		rules := fieldRules(fd)
		if rules.GetInline() {
			if err := b.addFields(m, fd.Message()); err != nil {
				return err
			}
			continue
		}
		ref, err := b.fieldRef(fd, rules)
		if err != nil {
			return err
		}
		field := schema.StructField{Name: fd.JSONName(), Type: ref}
		if d := rules.GetDefaultJson(); d != "" {
			if err := json.Unmarshal([]byte(d), &field.Default); err != nil {
				return fmt.Errorf("default_json of %s: %w", fd.FullName(), err)
			}
		}
		m.Fields = append(m.Fields, field)
	}
	return nil
}

func (b *schemaBuilder) fieldRef(fd protoreflect.FieldDescriptor, rules *metav1.FieldRules) (schema.TypeRef, error) {
	switch {
	case fd.IsMap():
		elem, err := b.valueRef(fd.MapValue())
		if err != nil {
			return schema.TypeRef{}, err
		}
		m := &schema.Map{ElementType: elem}
		if rules.GetAtomic() {
			m.ElementRelationship = schema.Atomic
		}
		return schema.TypeRef{Inlined: schema.Atom{Map: m}}, nil
	case fd.IsList():
		elem, err := b.valueRef(fd)
		if err != nil {
			return schema.TypeRef{}, err
		}
		l := &schema.List{ElementType: elem, ElementRelationship: schema.Atomic}
		switch rules.GetListType() {
		case metav1.ListType_LIST_TYPE_SET:
			l.ElementRelationship = schema.Associative
		case metav1.ListType_LIST_TYPE_MAP:
			l.ElementRelationship, l.Keys = schema.Associative, append(slices.Clip(rules.GetListMapKeys()), occurrence)
		}
		return schema.TypeRef{Inlined: schema.Atom{List: l}}, nil
	}
	ref, err := b.valueRef(fd)
	if err == nil && rules.GetAtomic() {
		atomic := schema.Atomic
		ref.ElementRelationship = &atomic
	}
	return ref, err
}

// valueRef is the type of one value of a field: of the elements when the field is a list.
func (b *schemaBuilder) valueRef(fd protoreflect.FieldDescriptor) (schema.TypeRef, error) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		if err := b.addMessage(fd.Message()); err != nil {
			return schema.TypeRef{}, err
		}
		name := string(fd.Message().FullName())
		return schema.TypeRef{NamedType: &name}, nil
	case protoreflect.BoolKind:
		return scalarRef(schema.Boolean), nil
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind:
		return scalarRef(schema.String), nil
	case protoreflect.GroupKind:
		return schema.TypeRef{}, fmt.Errorf("%s: groups have no JSON form", fd.FullName())
	default:
		return scalarRef(schema.Numeric), nil
	}
}

func scalar(s schema.Scalar) *schema.Scalar { return &s }

func scalarRef(s schema.Scalar) schema.TypeRef {
	return schema.TypeRef{Inlined: schema.Atom{Scalar: scalar(s)}}
}

func messageRules(md protoreflect.MessageDescriptor) *metav1.MessageRules {
	r, _ := proto.GetExtension(md.Options(), metav1.E_Message).(*metav1.MessageRules)
	return r
}

func fieldRules(fd protoreflect.FieldDescriptor) *metav1.FieldRules {
	r, _ := proto.GetExtension(fd.Options(), metav1.E_Field).(*metav1.FieldRules)
	return r
}
