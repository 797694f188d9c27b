package docs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/markdown"
)

func podFields(*testing.T) string     { return fieldTables(&corev1.Pod{}) }
func serviceFields(*testing.T) string { return fieldTables(&corev1.Service{}) }

func rulesOf(f protoreflect.FieldDescriptor) *metav1.FieldRules {
	rules, _ := proto.GetExtension(f.Options(), metav1.E_Field).(*metav1.FieldRules)
	return rules
}

func isObject(m protoreflect.MessageDescriptor) bool {
	rules, _ := proto.GetExtension(m.Options(), metav1.E_Message).(*metav1.MessageRules)
	return rules.GetJsonForm() == metav1.JsonForm_JSON_FORM_UNSPECIFIED && strings.HasPrefix(string(m.FullName()), "xebec.")
}

// messageOf is the message that a field, or each of its elements or values, holds; nil for none
// that has fields in JSON.
func messageOf(f protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if f.IsMap() {
		f = f.MapValue()
	}
	if m := f.Message(); m != nil && isObject(m) {
		return m
	}
	return nil
}

// fieldTables writes a table for each message that a kind is made of, status aside: what the
// cluster tells is not asked for. Below a field that is refused or has no effect there is nothing
// to tell.
func fieldTables(of scheme.Object) string {
	var out strings.Builder
	seen := map[protoreflect.FullName]bool{}
	var visit func(m protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] {
			return
		}
		seen[m.FullName()] = true
		var rows [][]string
		var below []protoreflect.MessageDescriptor
		for _, f := range jsonFields(m) {
			if f.Parent() == of.ProtoReflect().Descriptor() && f.Name() == "status" {
				continue
			}
			rules := rulesOf(f)
			state := "works"
			switch {
			case rules.GetRefused() != "":
				state = "refused: " + rules.GetRefused()
			case rules.GetNoEffect() != "":
				state = "accepted with a warning: " + rules.GetNoEffect()
			case rules.GetSince() != "":
				state = "works, with a warning: it is of Kubernetes " + rules.GetSince()
			case len(rules.GetRefusedValues()) > 0:
				state = "works; refused: `" + strings.Join(rules.GetRefusedValues(), "`, `") + "`"
			}
			rows = append(rows, []string{code(f.JSONName()), state})
			if b := messageOf(f); b != nil && rules.GetRefused() == "" && rules.GetNoEffect() == "" {
				below = append(below, b)
			}
		}
		fmt.Fprintf(&out, "**%s**\n\n%s\n", m.Name(), markdown.Table([]string{"field", ""}, rows))
		for _, b := range below {
			visit(b)
		}
	}
	visit(of.ProtoReflect().Descriptor())
	return out.String()
}

// jsonFields are a message's fields as its JSON has them: those of inlined messages stand among its
// own.
func jsonFields(m protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	var all []protoreflect.FieldDescriptor
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if rulesOf(f).GetInline() {
			all = append(all, jsonFields(f.Message())...)
			continue
		}
		all = append(all, f)
	}
	return all
}

// step is a way from an object to a field: the fields to set, one in the other.
type step []protoreflect.FieldDescriptor

// String is the path in JSON, as errors and warnings write it, of the first element of lists.
func (s step) String() string {
	var b strings.Builder
	for _, f := range s {
		if rulesOf(f).GetInline() {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(".")
		}
		b.WriteString(f.JSONName())
		switch {
		case f.IsMap():
			b.WriteString("[key]")
		case f.IsList():
			b.WriteString("[0]")
		}
	}
	return b.String()
}

// fieldsBelow yields every field of the messages below, each message once.
func fieldsBelow(m protoreflect.MessageDescriptor, way step, seen map[protoreflect.FullName]bool, yield func(step)) {
	if seen[m.FullName()] {
		return
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if len(way) == 0 && f.Name() == "status" {
			continue
		}
		here := append(slices.Clone(way), f)
		yield(here)
		if b := messageOf(f); b != nil && rulesOf(f).GetRefused() == "" && rulesOf(f).GetNoEffect() == "" {
			fieldsBelow(b, here, seen, yield)
		}
	}
}

// set makes an object in which the field is set, to text if it is a string, and nothing that does
// not lead there.
func (s step) set(of scheme.Object, text string) scheme.Object {
	o := of.ProtoReflect().New()
	at := o
	for n, f := range s {
		last := n == len(s)-1
		switch {
		case f.IsMap():
			value := at.NewField(f).Map().NewValue()
			if f.MapValue().Kind() != protoreflect.MessageKind {
				value = scalar(f.MapValue(), text)
			}
			at.Mutable(f).Map().Set(protoreflect.ValueOfString("key").MapKey(), value)
			if !last {
				at = value.Message()
			}
		case f.IsList():
			list := at.Mutable(f).List()
			if f.Kind() == protoreflect.MessageKind {
				element := list.AppendMutable().Message()
				if !last {
					at = element
				}
			} else {
				list.Append(scalar(f, text))
			}
		case f.Kind() == protoreflect.MessageKind:
			at = at.Mutable(f).Message()
		default:
			at.Set(f, scalar(f, text))
		}
	}
	return o.Interface().(scheme.Object)
}

func scalar(f protoreflect.FieldDescriptor, text string) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text)
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text))
	}
	panic(fmt.Sprintf("no value for %s, which is %s", f.FullName(), f.Kind()))
}

// refusal is what the rules of the object's kind say against the field as such, and not against its
// value or what it lacks.
func refusal(o scheme.Object, path string) string {
	k := kinds.Of(o)
	for _, err := range k.Validate(o) {
		if err.Type == field.ErrorTypeNotSupported && (err.Field == path || err.Field == strings.TrimSuffix(path, "[0]")) {
			return err.Detail
		}
	}
	return ""
}

// TestFieldsAreAsAnnotated sets every field of pods and services alone: what the protos say to be
// refused is, nothing else is refused for being set, and what has no effect is warned of.
func TestFieldsAreAsAnnotated(t *testing.T) {
	refused, warned, later := 0, 0, 0
	for _, of := range []scheme.Object{&corev1.Pod{}, &corev1.Service{}} {
		fieldsBelow(of.ProtoReflect().Descriptor(), nil, map[protoreflect.FullName]bool{}, func(way step) {
			f := way[len(way)-1]
			rules, path := rulesOf(f), way.String()
			o := way.set(of, "x")
			got := refusal(o, path)
			// A list of allowed values is about the value.
			if strings.HasPrefix(got, "supported values") {
				got = ""
			}
			if got != rules.GetRefused() {
				t.Errorf("%s: the rules of the kind refuse it with %q, its proto with %q", path, got, rules.GetRefused())
			}
			if rules.GetRefused() != "" {
				refused++
			}
			warnings := codec.Warnings(o)
			base := strings.TrimSuffix(strings.TrimSuffix(path, "[0]"), "[key]")
			want := base + ": " + strings.TrimSpace(rules.GetNoEffect())
			switch {
			case rules.GetNoEffect() != "":
				warned++
				if !slices.Contains(warnings, want) {
					t.Errorf("%s: the warnings are %q, want %q", path, warnings, want)
				}
			case rules.GetSince() != "":
				later++
				if !slices.ContainsFunc(warnings, func(w string) bool {
					return strings.HasPrefix(w, base+": ") && strings.Contains(w, "Kubernetes "+rules.GetSince())
				}) {
					t.Errorf("%s: the warnings are %q, want one that names Kubernetes %s", path, warnings, rules.GetSince())
				}
			case len(warnings) > 0:
				t.Errorf("%s: the warnings are %q, and the field's proto knows of none", path, warnings)
			}
			for _, value := range rules.GetRefusedValues() {
				refused++
				if refusal(way.set(of, value), path) == "" {
					t.Errorf("%s: %s is not refused: %v", path, value, kinds.Of(o).Validate(way.set(of, value)))
				}
			}
		})
	}
	if refused < 20 || warned < 5 || later < 10 {
		t.Errorf("only %d fields are refused, %d warned of and %d of later versions: are the annotations read?", refused, warned, later)
	}
}
