package codec

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/codec/tree"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// unset is how Kubernetes' JSON shows a field that is not set, which its types decide one by one.
type unset uint8

const (
	// unsetNone leaves the field out.
	unsetNone unset = iota
	// unsetZero writes false, 0, an empty string or an object of fields that are not set.
	unsetZero
	// unsetNull writes null.
	unsetNull
)

// Encode returns what is set in the message as a tree. Objects begin with apiVersion, kind and
// metadata; all other members are sorted by name, the keys of maps as well.
//
// It fails only on what cannot be written as JSON: a time outside the years 1 to 9999, or raw bytes
// that are no JSON.
func (c *Codec) Encode(m proto.Message) (*tree.Node, error) { return c.encode(&encoder{}, m) }

// EncodeWhole is Encode as Kubernetes writes objects: with false, 0, null or an empty object for
// those fields which its types write whether they are set or not. Reading it makes another message,
// in which such objects are set; it is for output.
func (c *Codec) EncodeWhole(m proto.Message) (*tree.Node, error) {
	return c.encode(&encoder{whole: true}, m)
}

type encoder struct{ whole bool }

func (c *Codec) encode(e *encoder, m proto.Message) (*tree.Node, error) {
	msg := m.ProtoReflect()
	n, err := e.message(msg, false, nil)
	if err != nil {
		return nil, err
	}
	if k, ok := kindOf(c.kinds, msg); ok {
		head := []tree.Member{
			{Key: "apiVersion", Value: &tree.Node{Kind: tree.String, Text: k.APIVersion()}},
			{Key: "kind", Value: &tree.Node{Kind: tree.String, Text: k.Name}},
		}
		if i := slices.IndexFunc(n.Members, func(m tree.Member) bool { return m.Key == "metadata" }); i >= 0 {
			head = append(head, n.Members[i])
			n.Members = slices.Delete(n.Members, i, i+1)
		}
		n.Members = append(head, n.Members...)
	}
	return n, nil
}

func (e *encoder) message(msg protoreflect.Message, micro bool, at *path) (*tree.Node, error) {
	s := shapeOf(msg.Descriptor())
	switch s.form {
	case formQuantity:
		q := generated(msg, &metav1.Quantity{})
		return &tree.Node{Kind: tree.String, Text: cmp.Or(q.GetString_(), "0")}, nil
	case formIntOrString:
		v := generated(msg, &metav1.IntOrString{})
		if v.GetType() == 0 {
			return &tree.Node{Kind: tree.Number, Text: strconv.Itoa(int(v.GetIntVal()))}, nil
		}
		return &tree.Node{Kind: tree.String, Text: v.GetStrVal()}, nil
	case formRaw:
		raw := msg.Get(msg.Descriptor().Fields().ByNumber(1)).Bytes()
		if len(raw) == 0 {
			return &tree.Node{}, nil
		}
		n, err := tree.ParseJSON(raw)
		if err != nil {
			return nil, &FieldError{Path: at.String(), Message: fmt.Sprintf("raw value: %v", err)}
		}
		return n, nil
	case formList:
		return e.field(msg, &member{field: msg.Descriptor().Fields().ByNumber(1)}, at)
	case formTimestamp:
		return encodeTime(generated(msg, &timestamppb.Timestamp{}), micro, at)
	}
	n := &tree.Node{Kind: tree.Map}
	for _, m := range s.members {
		holder, ok := m.get(msg)
		value := &tree.Node{}
		var err error
		switch {
		case ok:
			value, err = e.field(holder, m, at.field(m.name))
		case !e.whole || m.unset == unsetNone:
			continue
		case m.unset == unsetZero:
			value, err = e.field(m.holder(msg), m, at.field(m.name))
		}
		if err != nil {
			return nil, err
		}
		if value.Kind == tree.Null && (!e.whole || m.unset != unsetNull) {
			continue
		}
		n.Members = append(n.Members, tree.Member{Key: m.name, Value: value})
	}
	return n, nil
}

func (e *encoder) field(holder protoreflect.Message, m *member, at *path) (*tree.Node, error) {
	value := holder.Get(m.field)
	switch {
	case m.field.IsMap():
		return e.mapping(value.Map(), m, at)
	case m.field.IsList():
		list := value.List()
		n := &tree.Node{Kind: tree.List, Items: make([]*tree.Node, list.Len())}
		for i := range list.Len() {
			var err error
			if n.Items[i], err = e.value(m.field, list.Get(i), m.micro, at.item(i)); err != nil {
				return nil, err
			}
		}
		return n, nil
	}
	return e.value(m.field, value, m.micro, at)
}

func (e *encoder) mapping(values protoreflect.Map, m *member, at *path) (*tree.Node, error) {
	n := &tree.Node{Kind: tree.Map, Members: make([]tree.Member, 0, values.Len())}
	for key, value := range sortedMap(values) {
		name := key.String()
		encoded, err := e.value(m.field.MapValue(), value, m.micro, at.key(name))
		if err != nil {
			return nil, err
		}
		n.Members = append(n.Members, tree.Member{Key: name, Value: encoded})
	}
	return n, nil
}

// sortedMap iterates over a map by key, as text.
func sortedMap(values protoreflect.Map) iter.Seq2[protoreflect.MapKey, protoreflect.Value] {
	return func(yield func(protoreflect.MapKey, protoreflect.Value) bool) {
		keys := make([]protoreflect.MapKey, 0, values.Len())
		for key := range values.Range {
			keys = append(keys, key)
		}
		slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			if !yield(key, values.Get(key)) {
				return
			}
		}
	}
}

func (e *encoder) value(field protoreflect.FieldDescriptor, value protoreflect.Value, micro bool, at *path) (*tree.Node, error) {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return e.message(value.Message(), micro, at)
	case protoreflect.BoolKind:
		return &tree.Node{Kind: tree.Bool, Text: strconv.FormatBool(value.Bool())}, nil
	case protoreflect.StringKind:
		return &tree.Node{Kind: tree.String, Text: value.String()}, nil
	case protoreflect.BytesKind:
		return &tree.Node{Kind: tree.String, Text: base64.StdEncoding.EncodeToString(value.Bytes())}, nil
	case protoreflect.EnumKind:
		if v := field.Enum().Values().ByNumber(value.Enum()); v != nil {
			return &tree.Node{Kind: tree.String, Text: string(v.Name())}, nil
		}
		return &tree.Node{Kind: tree.Number, Text: strconv.Itoa(int(value.Enum()))}, nil
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if f := value.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, &FieldError{Path: at.String(), Message: fmt.Sprintf("%v is not a JSON number", f)}
		}
	}
	return &tree.Node{Kind: tree.Number, Text: fmt.Sprint(value.Interface())}, nil
}

const microFormat = "2006-01-02T15:04:05.000000Z07:00"

// encodeTime returns null for the empty message, which is how Kubernetes puts a time that is not
// set on the wire.
func encodeTime(ts *timestamppb.Timestamp, micro bool, at *path) (*tree.Node, error) {
	if ts.GetSeconds() == 0 && ts.GetNanos() == 0 {
		return &tree.Node{}, nil
	}
	if err := ts.CheckValid(); err != nil {
		return nil, &FieldError{Path: at.String(), Message: "the time is not within the years 1 to 9999"}
	}
	layout := time.RFC3339
	if micro {
		layout = microFormat
	}
	return &tree.Node{Kind: tree.String, Text: ts.AsTime().Format(layout)}, nil
}
