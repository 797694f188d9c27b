package schema

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// lock returns the descriptor of a message with an immutable field, an immutable list, a list with
// keys and a message.
func lock(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	fixed := &descriptorpb.FieldOptions{}
	proto.SetExtension(fixed, metav1.E_Field, &metav1.FieldRules{Immutable: true})
	keyed := &descriptorpb.FieldOptions{}
	proto.SetExtension(keyed, metav1.E_Field, &metav1.FieldRules{ListType: metav1.ListType_LIST_TYPE_MAP, ListMapKeys: []string{"name"}})
	text := func(name string, number int32, label descriptorpb.FieldDescriptorProto_Label, o *descriptorpb.FieldOptions) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{
			Name: &name, JsonName: &name, Number: &number, Label: label.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Options: o,
		}
	}
	message := func(name string, number int32, label descriptorpb.FieldDescriptorProto_Label, o *descriptorpb.FieldOptions) *descriptorpb.FieldDescriptorProto {
		f := text(name, number, label, o)
		f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new(".lock.Lock")
		return f
	}
	one, many := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("lock.proto"), Package: new("lock"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Lock"), Field: []*descriptorpb.FieldDescriptorProto{
			text("name", 1, one, nil), text("key", 2, one, fixed), text("pins", 3, many, fixed),
			message("parts", 4, many, keyed), message("inner", 5, one, nil), message("others", 6, many, nil),
		}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

func TestImmutableFields(t *testing.T) {
	d := lock(t)
	lock := func(name, key string, pins ...string) protoreflect.Message {
		m := dynamicpb.NewMessage(d)
		m.Set(d.Fields().ByName("name"), protoreflect.ValueOfString(name))
		if key != "" {
			m.Set(d.Fields().ByName("key"), protoreflect.ValueOfString(key))
		}
		for _, pin := range pins {
			m.Mutable(d.Fields().ByName("pins")).List().Append(protoreflect.ValueOfString(pin))
		}
		return m
	}
	with := func(m protoreflect.Message, field protoreflect.Name, below ...protoreflect.Message) protoreflect.Message {
		f := d.Fields().ByName(field)
		for _, b := range below {
			if f.IsList() {
				m.Mutable(f).List().Append(protoreflect.ValueOfMessage(b))
			} else {
				m.Set(f, protoreflect.ValueOfMessage(b))
			}
		}
		return m
	}
	for _, tt := range []struct {
		name         string
		updated, old protoreflect.Message
		want         string
	}{
		{"nothing changes", lock("a", "k", "1"), lock("a", "k", "1"), ""},
		{"another field changes", lock("b", "k"), lock("a", "k"), ""},
		{"a field changes", lock("a", "l"), lock("a", "k"), `key: Invalid value: "l": field is immutable`},
		{"a field is set", lock("a", "k"), lock("a", ""), `key: Invalid value: "k": field is immutable`},
		{"a field is cleared", lock("a", ""), lock("a", "k"), "key: Invalid value: null: field is immutable"},
		{"a list grows", lock("a", "k", "1", "2"), lock("a", "k", "1"), "pins: Invalid value: field is immutable"},
		{"a message", with(lock("a", ""), "inner", lock("", "l")), with(lock("a", ""), "inner", lock("", "k")), `inner.key: Invalid value: "l"`},
		{"a message appears", with(lock("a", ""), "inner", lock("", "l")), lock("a", ""), ""},
		{
			"elements by key",
			with(lock("a", ""), "parts", lock("new", "x"), lock("two", "l"), lock("one", "k")),
			with(lock("a", ""), "parts", lock("one", "k"), lock("two", "k"), lock("gone", "k")),
			`parts[1].key: Invalid value: "l"`,
		},
		{"elements without keys", with(lock("a", ""), "others", lock("one", "l")), with(lock("a", ""), "others", lock("one", "k")), ""},
	} {
		errs := ValidateUpdate(nil, tt.updated.Interface(), tt.old.Interface())
		got := ""
		if len(errs) > 0 {
			got = errs[0].Error()
		}
		if len(errs) > 1 || !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %v, want %q", tt.name, errs, tt.want)
		}
	}
}
