package build

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/schema"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	timestamp = protoreflect.FullName("google.protobuf.Timestamp")
	machinery = "io.k8s.apimachinery.pkg."
)

// machineryNames are the definitions of Kubernetes that are in other packages than their messages.
var machineryNames = map[protoreflect.FullName]string{
	"xebec.meta.v1.Quantity":     machinery + "api.resource.Quantity",
	"xebec.meta.v1.IntOrString":  machinery + "util.intstr.IntOrString",
	"xebec.meta.v1.RawExtension": machinery + "runtime.RawExtension",
}

// definitionNames returns the names of the definitions of all messages that kinds reach. Messages
// that Kubernetes has too are named as there; others are named by the group of their kind, as
// those of custom resources are.
func definitionNames(kinds []*scheme.Kind) map[protoreflect.FullName]string {
	names := map[protoreflect.FullName]string{}
	for _, own := range []bool{false, true} {
		for _, k := range kinds {
			if own != isOwn(k) {
				continue
			}
			prefix := ""
			if own {
				labels := strings.Split(k.Group, ".")
				slices.Reverse(labels)
				prefix = strings.Join(append(labels[:len(labels)-1], labels[len(labels)-1], k.Version), ".") + "."
			}
			nameMessages(names, k.New().ProtoReflect().Descriptor(), prefix)
		}
	}
	for _, m := range httpMessages {
		nameMessages(names, m.ProtoReflect().Descriptor(), "")
	}
	return names
}

// isOwn reports whether Kubernetes has no such kind.
func isOwn(k *scheme.Kind) bool { return strings.HasSuffix(k.Group, ".xebec.io") }

// nameMessages adds the names of a message and of those that it reaches and that have none.
func nameMessages(names map[protoreflect.FullName]string, m protoreflect.MessageDescriptor, prefix string) {
	if names[m.FullName()] != "" || m.FullName() == timestamp {
		return
	}
	name := prefix + string(m.Name())
	switch pkg := string(m.ParentFile().Package()); {
	case machineryNames[m.FullName()] != "":
		name = machineryNames[m.FullName()]
	case pkg == "xebec.meta.v1":
		name = machinery + "apis.meta.v1." + string(m.Name())
	case prefix == "":
		name = "io.k8s.api." + strings.TrimPrefix(pkg, "xebec.") + "." + string(m.Name())
	}
	names[m.FullName()] = name
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.IsMap() {
			f = f.MapValue()
		}
		if f.Message() != nil {
			nameMessages(names, f.Message(), prefix)
		}
	}
}

// fail keeps the first error.
func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// define adds a definition, unless it is there, and returns a reference to it. fill is called
// after the name is taken, since types contain themselves.
func (b *builder) define(name string, fill func(*definition)) *definition {
	if b.definitions == nil {
		b.definitions = map[string]*definition{}
	}
	if b.definitions[name] == nil {
		d := &definition{}
		b.definitions[name] = d
		fill(d)
	}
	return &definition{Ref: b.refs + name}
}

// message returns a reference to the definition of a message.
func (b *builder) message(m protoreflect.MessageDescriptor) *definition {
	name := b.names[m.FullName()]
	if name == "" {
		b.fail("message %s has no definition", m.FullName())
	}
	return b.define(name, func(d *definition) {
		rules := schema.MessageRulesOf(m)
		d.Description = b.comments[m.FullName()]
		switch rules.GetJsonForm() {
		case metav1.JsonForm_JSON_FORM_QUANTITY:
			b.either(d, "string", "number")
		case metav1.JsonForm_JSON_FORM_INT_OR_STRING:
			d.Format = "int-or-string"
			b.either(d, "integer", "string")
		case metav1.JsonForm_JSON_FORM_RAW:
			d.Type = "object"
		default:
			d.Type = "object"
			if rules.GetAtomic() {
				d.MapType = "atomic"
			}
			d.Unions = unionsOf(rules)
			b.properties(d, m)
			if kind, ok := httpKinds[m.FullName()]; ok {
				b.addType(d, kind)
			} else if _, ok := kinds.ByMessage(m.FullName()); ok {
				d.addTypeMembers() // Other objects may contain it, such as the claims of StatefulSets.
			}
		}
	})
}

// either sets a type of two forms, for which version 2 has no words.
func (b *builder) either(d *definition, one, other string) {
	if !b.three {
		d.Type = "string"
		return
	}
	d.OneOf = []*definition{{Type: one}, {Type: other}}
}

// addType adds what the JSON of an object says about its kind and no message declares.
func (b *builder) addType(d *definition, kind scheme.GVK) {
	d.Kinds = []gvk{gvkOf(kind)}
	if kind.Kind == "WatchEvent" {
		return
	}
	d.addTypeMembers()
}

// addTypeMembers adds the members by which the JSON of an object names its kind.
func (d *definition) addTypeMembers() {
	if d.Properties == nil {
		d.Properties = map[string]*definition{}
	}
	d.Properties["apiVersion"] = &definition{Type: "string", Description: "Group and version of the object's kind, such as v1 or apps/v1."}
	d.Properties["kind"] = &definition{Type: "string", Description: "Kind of the object, such as Pod."}
}

// properties adds the fields of a message to a definition. Members of inline messages are members
// of the message itself.
func (b *builder) properties(d *definition, m protoreflect.MessageDescriptor) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		rules := schema.RulesOf(f)
		if rules.GetInline() {
			b.properties(d, f.Message())
			continue
		}
		if d.Properties == nil {
			d.Properties = map[string]*definition{}
		}
		d.Properties[f.JSONName()] = b.property(f, rules)
		if schema.Required(f) {
			d.Required = append(d.Required, f.JSONName())
		}
	}
	slices.Sort(d.Required)
}

func (b *builder) property(f protoreflect.FieldDescriptor, rules *metav1.FieldRules) *definition {
	var p *definition
	switch {
	case f.IsMap():
		p = &definition{Type: "object", Values: b.value(f.MapValue(), nil)}
	case f.IsList():
		p = &definition{Type: "array", Items: b.value(f, rules)}
		setMerge(p, rules)
	default:
		p = b.value(f, rules)
	}
	if p.Ref != "" && b.three {
		// In version 3 a reference has no other members.
		p = &definition{AllOf: []*definition{p}}
	}
	p.Description = b.describe(f, rules)
	if rules.GetAtomic() {
		p.MapType = "atomic"
	}
	switch rules.GetPatchStrategy() {
	case metav1.PatchStrategy_PATCH_STRATEGY_MERGE:
		p.PatchStrategy = "merge"
	case metav1.PatchStrategy_PATCH_STRATEGY_RETAIN_KEYS:
		p.PatchStrategy = "retainKeys"
	case metav1.PatchStrategy_PATCH_STRATEGY_MERGE_RETAIN_KEYS:
		p.PatchStrategy = "merge,retainKeys"
	case metav1.PatchStrategy_PATCH_STRATEGY_REPLACE:
		p.PatchStrategy = "replace"
	}
	p.PatchMergeKey = rules.GetPatchMergeKey()
	// Version 2 has no defaults, as in Kubernetes: older clients cannot read those of objects.
	if text := rules.GetDefaultJson(); text != "" && b.three {
		p.Default = json.RawMessage(text)
	}
	return p
}

// setMerge states how server-side apply merges a list.
func setMerge(p *definition, rules *metav1.FieldRules) {
	switch rules.GetListType() {
	case metav1.ListType_LIST_TYPE_SET:
		p.ListType = "set"
	case metav1.ListType_LIST_TYPE_MAP:
		p.ListType, p.ListMapKeys = "map", rules.GetListMapKeys()
	default:
		p.ListType = "atomic"
	}
}

func (b *builder) describe(f protoreflect.FieldDescriptor, rules *metav1.FieldRules) string {
	text := b.comments[f.FullName()]
	switch {
	case rules.GetRefused() != "":
		text += " Not supported: " + rules.GetRefused() + "."
	case rules.GetNoEffect() != "":
		text += " Has no effect yet: " + rules.GetNoEffect() + "."
	}
	return strings.TrimSpace(text)
}

// value is the type of one value of a field: of an element when the field is a list.
func (b *builder) value(f protoreflect.FieldDescriptor, rules *metav1.FieldRules) *definition {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return b.messageValue(f, rules)
	case protoreflect.StringKind:
		return &definition{Type: "string", Enum: rules.GetEnum()}
	case protoreflect.BoolKind:
		return &definition{Type: "boolean"}
	case protoreflect.BytesKind:
		return &definition{Type: "string", Format: "byte"}
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return &definition{Type: "integer", Format: f.Kind().String()}
	case protoreflect.DoubleKind:
		return &definition{Type: "number", Format: "double"}
	}
	b.fail("%s: there is no type for %s", f.FullName(), f.Kind())
	return &definition{}
}

func (b *builder) messageValue(f protoreflect.FieldDescriptor, rules *metav1.FieldRules) *definition {
	m := f.Message()
	if m.FullName() == timestamp {
		name, text := "Time", "A time as RFC 3339 writes it, in whole seconds."
		if rules.GetMicroTime() {
			name, text = "MicroTime", "A time as RFC 3339 writes it, with six decimals."
		}
		return b.define(machinery+"apis.meta.v1."+name, func(d *definition) {
			d.Type, d.Format, d.Description = "string", "date-time", text
		})
	}
	if schema.MessageRulesOf(m).GetJsonForm() == metav1.JsonForm_JSON_FORM_LIST {
		return &definition{Type: "array", Items: b.value(m.Fields().Get(0), nil), ListType: "atomic"}
	}
	return b.message(m)
}

// unionsOf states which fields of a message exclude each other.
func unionsOf(rules *metav1.MessageRules) []union {
	if len(rules.GetUnionFields()) == 0 {
		return nil
	}
	u := union{Discriminator: rules.GetUnionDiscriminator(), Fields: map[string]string{}}
	for _, name := range rules.GetUnionFields() {
		u.Fields[name] = strings.ToUpper(name[:1]) + name[1:]
	}
	return []union{u}
}
