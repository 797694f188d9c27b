package codec

import (
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// maxErrors bounds how many errors of one document are reported: the rest would be read after these
// are corrected.
const maxErrors = 50

// Decode reads one object, whose apiVersion and kind say what it is. Errors are of type Errors.
func (c *Codec) Decode(n *tree.Node) (scheme.Object, error) {
	o, _, err := decode(n, &decoder{kinds: c.kinds})
	return o, err
}

// DecodeLenient is Decode for what people write: of members with the same key the last counts, as
// with Kubernetes, and the others are returned as warnings.
func (c *Codec) DecodeLenient(n *tree.Node) (scheme.Object, Errors, error) {
	return decode(n, &decoder{kinds: c.kinds, lenient: true})
}

func decode(n *tree.Node, d *decoder) (scheme.Object, Errors, error) {
	k, err := d.kindOf(n)
	if err != nil {
		return nil, nil, err
	}
	o := k.New()
	if err := d.into(n, o); err != nil {
		return nil, d.warnings, err
	}
	return o, d.warnings, nil
}

// DecodeInto reads a tree into m as UnmarshalInto does.
func (c *Codec) DecodeInto(n *tree.Node, m proto.Message) error {
	return (&decoder{kinds: c.kinds}).into(n, m)
}

func (d *decoder) into(n *tree.Node, m proto.Message) error {
	proto.Reset(m)
	msg := m.ProtoReflect()
	if n.Kind == tree.Null {
		d.errorf(nil, n.Line, "must be %s, not null", article(shapeOf(msg.Descriptor()).form))
	} else {
		d.message(n, msg, false, nil)
	}
	if len(d.errs) > 0 {
		return d.errs
	}
	return nil
}

type decoder struct {
	kinds *scheme.Scheme
	errs  Errors
	// lenient makes duplicate keys warnings.
	lenient  bool
	warnings Errors
}

func (d *decoder) errorf(at *path, line int, format string, args ...any) {
	switch {
	case len(d.errs) < maxErrors:
		d.errs = append(d.errs, &FieldError{Path: at.String(), Line: line, Message: fmt.Sprintf(format, args...)})
	case len(d.errs) == maxErrors:
		d.errs = append(d.errs, &FieldError{Line: line, Message: "too many errors"})
	}
}

// wrong reports a value of the wrong kind.
func (d *decoder) wrong(n *tree.Node, want string, at *path) {
	hint := ""
	switch {
	case want == "a string" && (n.Kind == tree.Number || n.Kind == tree.Bool):
		hint = ": write it in quotes"
	case want == "a whole number" && n.Kind == tree.String:
		if _, err := strconv.ParseInt(n.Text, 10, 64); err == nil {
			hint = ": write it without quotes"
		}
	}
	d.errorf(at, n.Line, "must be %s, not %s%s", want, n.Describe(), hint)
}

func article(f form) string {
	switch f {
	case formQuantity:
		return "a quantity such as 500m, 2 or 128Mi"
	case formIntOrString:
		return "a whole number or a string"
	case formList:
		return "a list"
	case formTimestamp:
		return "a time such as 2006-01-02T15:04:05Z"
	}
	return "an object"
}

// message reads any value but null into msg.
func (d *decoder) message(n *tree.Node, msg protoreflect.Message, micro bool, at *path) {
	s := shapeOf(msg.Descriptor())
	switch s.form {
	case formQuantity:
		fill(msg, &metav1.Quantity{}, func(q *metav1.Quantity) { d.quantity(n, q, at) })
	case formIntOrString:
		fill(msg, &metav1.IntOrString{}, func(v *metav1.IntOrString) { d.intOrString(n, v, at) })
	case formRaw:
		msg.Set(msg.Descriptor().Fields().ByNumber(1), protoreflect.ValueOfBytes(n.JSON()))
	case formList:
		d.list(n, &member{field: msg.Descriptor().Fields().ByNumber(1)}, msg, at)
	case formTimestamp:
		fill(msg, &timestamppb.Timestamp{}, func(ts *timestamppb.Timestamp) { d.time(n, ts, micro, at) })
	default:
		d.object(n, msg, s, at)
	}
}

func (d *decoder) object(n *tree.Node, msg protoreflect.Message, s *shape, at *path) {
	if n.Kind != tree.Map {
		d.wrong(n, "an object", at)
		return
	}
	k, isKind := kindOf(d.kinds, msg)
	for nm := range d.members(n, at.field) {
		m, ok := s.byName[nm.Key]
		switch {
		case ok:
			d.member(nm, m, msg, at.field(nm.Key))
		case isKind && nm.Key == "apiVersion":
			d.constant(nm, k.APIVersion(), at)
		case isKind && nm.Key == "kind":
			d.constant(nm, k.Name, at)
		default:
			d.unknown(nm, s, isKind, at)
		}
	}
}

// members are the members of a map, of those with the same key the last alone, as Kubernetes has
// it. The others are reported.
func (d *decoder) members(n *tree.Node, at func(string) *path) iter.Seq[tree.Member] {
	last := make(map[string]int, len(n.Members))
	for i, m := range n.Members {
		last[m.Key] = i
	}
	return func(yield func(tree.Member) bool) {
		lines := map[string]int{}
		for i, m := range n.Members {
			if first, twice := lines[m.Key]; twice {
				d.duplicate(at(m.Key), m.Line, first)
			}
			if last[m.Key] != i {
				if _, twice := lines[m.Key]; !twice {
					lines[m.Key] = m.Line
				}
				continue
			}
			if !yield(m) {
				return
			}
		}
	}
}

func (d *decoder) duplicate(at *path, line, first int) {
	message := "duplicate key"
	if first > 0 {
		message = fmt.Sprintf("duplicate key, first written on line %d", first)
	}
	switch {
	case !d.lenient:
		d.errorf(at, line, "%s", message)
	case len(d.warnings) < maxErrors:
		d.warnings = append(d.warnings, &FieldError{Path: at.String(), Line: line, Message: message + ": the last one counts"})
	}
}

func (d *decoder) unknown(nm tree.Member, s *shape, isKind bool, at *path) {
	var also []string
	if isKind {
		also = []string{"apiVersion", "kind"}
	}
	name := nm.Key
	if !utf8.ValidString(name) {
		name = strings.ToValidUTF8(name, "\uFFFD")
	}
	if near := s.nearest(name, also...); near != "" {
		d.errorf(at.field(name), nm.Line, "unknown field, did you mean %s?", near)
		return
	}
	d.errorf(at.field(name), nm.Line, "unknown field")
}

// constant checks the apiVersion or kind of a message whose kind is already known.
func (d *decoder) constant(nm tree.Member, want string, at *path) {
	if nm.Value.Kind == tree.String && nm.Value.Text != want {
		d.errorf(at.field(nm.Key), nm.Line, "must be %q, not %s", want, nm.Value.Describe())
	} else if nm.Value.Kind != tree.String && nm.Value.Kind != tree.Null {
		d.wrong(nm.Value, "a string", at.field(nm.Key))
	}
}

func (d *decoder) member(nm tree.Member, m *member, msg protoreflect.Message, at *path) {
	n := nm.Value
	if n.Kind == tree.Null {
		return
	}
	holder := m.mutable(msg)
	switch {
	case m.field.IsMap():
		d.mapping(n, m, holder, at)
	case m.field.IsList():
		d.list(n, m, holder, at)
	case m.field.Kind() == protoreflect.MessageKind:
		value := holder.NewField(m.field)
		d.message(n, value.Message(), m.micro, at)
		// A time of year 1 is how Go writes one that is not set.
		if shapeOf(value.Message().Descriptor()).form == formTimestamp && proto.Size(value.Message().Interface()) == 0 {
			return
		}
		holder.Set(m.field, value)
	default:
		if value, ok := d.scalar(n, m.field, at); ok {
			holder.Set(m.field, value)
		}
	}
}

func (d *decoder) list(n *tree.Node, m *member, holder protoreflect.Message, at *path) {
	if n.Kind != tree.List {
		d.wrong(n, "a list", at)
		return
	}
	if len(n.Items) == 0 {
		return
	}
	list := holder.Mutable(m.field).List()
	for i, item := range n.Items {
		if value, ok := d.element(item, m.field, list.NewElement, m.micro, at.item(i)); ok {
			list.Append(value)
		}
	}
}

func (d *decoder) mapping(n *tree.Node, m *member, holder protoreflect.Message, at *path) {
	if n.Kind != tree.Map {
		d.wrong(n, "an object", at)
		return
	}
	if len(n.Members) == 0 {
		return
	}
	values := holder.Mutable(m.field).Map()
	for nm := range d.members(n, at.key) {
		key, ok := d.mapKey(nm, m.field.MapKey(), at)
		if !ok {
			continue
		}
		if value, ok := d.element(nm.Value, m.field.MapValue(), values.NewValue, m.micro, at.key(nm.Key)); ok {
			values.Set(key, value)
		}
	}
}

func (d *decoder) mapKey(nm tree.Member, field protoreflect.FieldDescriptor, at *path) (protoreflect.MapKey, bool) {
	text := &tree.Node{Kind: tree.String, Text: nm.Key, Line: nm.Line}
	switch field.Kind() {
	case protoreflect.StringKind:
	case protoreflect.BoolKind:
		text.Kind = tree.Bool
	default:
		text.Kind = tree.Number
	}
	value, ok := d.scalar(text, field, at.key(nm.Key))
	if !ok {
		return protoreflect.MapKey{}, false
	}
	return value.MapKey(), true
}

// element reads an element of a list or a map. Null is the zero value there, as Kubernetes has it.
func (d *decoder) element(
	n *tree.Node,
	field protoreflect.FieldDescriptor,
	zero func() protoreflect.Value,
	micro bool,
	at *path,
) (protoreflect.Value, bool) {
	if n.Kind == tree.Null {
		return zero(), true
	}
	if field.Kind() == protoreflect.MessageKind {
		value := zero()
		d.message(n, value.Message(), micro, at)
		return value, true
	}
	return d.scalar(n, field, at)
}

func (d *decoder) scalar(n *tree.Node, field protoreflect.FieldDescriptor, at *path) (protoreflect.Value, bool) {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return d.bool(n, at)
	case protoreflect.StringKind:
		if n.Kind != tree.String {
			d.wrong(n, "a string", at)
			return protoreflect.Value{}, false
		}
		if !utf8.ValidString(n.Text) {
			d.errorf(at, n.Line, "the string is not valid UTF-8")
			return protoreflect.Value{}, false
		}
		return protoreflect.ValueOfString(n.Text), true
	case protoreflect.BytesKind:
		return d.bytes(n, at)
	case protoreflect.EnumKind:
		return d.enum(n, field.Enum(), at)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		i, ok := d.integer(n, 32, at)
		return protoreflect.ValueOfInt32(int32(i)), ok
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		i, ok := d.integer(n, 64, at)
		return protoreflect.ValueOfInt64(i), ok
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		u, ok := d.unsigned(n, 32, at)
		return protoreflect.ValueOfUint32(uint32(u)), ok
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		u, ok := d.unsigned(n, 64, at)
		return protoreflect.ValueOfUint64(u), ok
	case protoreflect.FloatKind:
		f, ok := d.float(n, 32, at)
		return protoreflect.ValueOfFloat32(float32(f)), ok
	case protoreflect.DoubleKind:
		f, ok := d.float(n, 64, at)
		return protoreflect.ValueOfFloat64(f), ok
	}
	d.errorf(at, n.Line, "fields of type %s have no JSON form", field.Kind())
	return protoreflect.Value{}, false
}

func (d *decoder) bool(n *tree.Node, at *path) (protoreflect.Value, bool) {
	if old, ok := n.OldBool(); ok {
		return protoreflect.ValueOfBool(old), true
	}
	if n.Kind != tree.Bool || n.Text != "true" && n.Text != "false" {
		d.wrong(n, "true or false", at)
		return protoreflect.Value{}, false
	}
	return protoreflect.ValueOfBool(n.Text == "true"), true
}

func (d *decoder) bytes(n *tree.Node, at *path) (protoreflect.Value, bool) {
	if n.Kind != tree.String {
		d.wrong(n, "a string in base64", at)
		return protoreflect.Value{}, false
	}
	b, err := base64.StdEncoding.DecodeString(n.Text)
	if err != nil {
		// The text may be a secret that was not encoded by mistake, so that it is not shown.
		d.errorf(at, n.Line, "must be a string in base64: %v", err)
		return protoreflect.Value{}, false
	}
	return protoreflect.ValueOfBytes(b), true
}

func (d *decoder) enum(n *tree.Node, desc protoreflect.EnumDescriptor, at *path) (protoreflect.Value, bool) {
	if n.Kind == tree.String {
		if v := desc.Values().ByName(protoreflect.Name(n.Text)); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), true
		}
	}
	names := make([]string, desc.Values().Len())
	for i := range names {
		names[i] = string(desc.Values().Get(i).Name())
	}
	d.errorf(at, n.Line, "must be one of %s, not %s", strings.Join(names, ", "), n.Describe())
	return protoreflect.Value{}, false
}

func (d *decoder) integer(n *tree.Node, bits int, at *path) (int64, bool) {
	if n.Kind != tree.Number {
		d.wrong(n, "a whole number", at)
		return 0, false
	}
	i, err := strconv.ParseInt(n.Text, 10, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		d.errorf(at, n.Line, "%s is out of range: must be from %d to %d", n.Describe(), int64(-1)<<(bits-1), int64(math.MaxInt64)>>(64-bits))
	case err != nil:
		d.wrong(n, "a whole number", at)
	}
	return i, err == nil
}

func (d *decoder) unsigned(n *tree.Node, bits int, at *path) (uint64, bool) {
	if n.Kind != tree.Number {
		d.wrong(n, "a whole number", at)
		return 0, false
	}
	u, err := strconv.ParseUint(n.Text, 10, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		d.errorf(at, n.Line, "%s is out of range: must be from 0 to %d", n.Describe(), uint64(math.MaxUint64)>>(64-bits))
	case err != nil:
		d.wrong(n, "a whole number that is not negative", at)
	}
	return u, err == nil
}

func (d *decoder) float(n *tree.Node, bits int, at *path) (float64, bool) {
	if n.Kind != tree.Number {
		d.wrong(n, "a number", at)
		return 0, false
	}
	f, err := strconv.ParseFloat(n.Text, bits)
	if err != nil {
		d.errorf(at, n.Line, "%s is out of range", n.Describe())
	}
	return f, err == nil
}

func (d *decoder) intOrString(n *tree.Node, v *metav1.IntOrString, at *path) {
	switch n.Kind {
	case tree.Number:
		i, _ := d.integer(n, 32, at)
		v.IntVal = int32(i)
	case tree.String:
		if !utf8.ValidString(n.Text) {
			d.errorf(at, n.Line, "the string is not valid UTF-8")
			return
		}
		v.Type, v.StrVal = 1, n.Text
	default:
		d.wrong(n, article(formIntOrString), at)
	}
}

func (d *decoder) quantity(n *tree.Node, v *metav1.Quantity, at *path) {
	if n.Kind != tree.Number && n.Kind != tree.String {
		d.wrong(n, article(formQuantity), at)
		return
	}
	q, err := object.ParseQuantity(strings.TrimSpace(n.Text))
	switch {
	case errors.Is(err, object.ErrQuantityRange):
		d.errorf(at, n.Line, "%s is out of range", n.Describe())
	case err != nil:
		d.wrong(n, article(formQuantity), at)
	default:
		v.String_ = q.String()
	}
}

func (d *decoder) time(n *tree.Node, v *timestamppb.Timestamp, micro bool, at *path) {
	if n.Kind != tree.String {
		d.wrong(n, article(formTimestamp), at)
		return
	}
	t, err := time.Parse(time.RFC3339, n.Text)
	if err != nil || timestamppb.New(t).CheckValid() != nil {
		d.wrong(n, article(formTimestamp), at)
		return
	}
	if t.IsZero() {
		return
	}
	v.Seconds = t.Unix()
	if micro {
		v.Nanos = int32(t.Nanosecond() / 1000 * 1000)
	}
}

// kindOf returns the kind that a document's apiVersion and kind name.
func (d *decoder) kindOf(n *tree.Node) (*scheme.Kind, error) {
	if n.Kind != tree.Map {
		d.wrong(n, "an object with apiVersion, kind and metadata", nil)
		return nil, d.errs
	}
	apiVersion, apiLine := d.typeMember(n, "apiVersion", "v1 or apps/v1")
	name, nameLine := d.typeMember(n, "kind", "Pod or Deployment")
	if len(d.errs) > 0 {
		return nil, d.errs
	}
	if k, ok := d.kinds.ByAPIVersionKind(apiVersion, name); ok {
		return k, nil
	}
	if k, ok := kinds.Served(d.kinds, apiVersion, name); ok {
		d.errorf((*path)(nil).field("apiVersion"), apiLine, "%s is not served in %q: write %s", name, apiVersion, k.APIVersion())
	} else {
		d.errorf((*path)(nil).field("kind"), nameLine, "%s", kinds.WhyNot(d.kinds, apiVersion, name))
	}
	d.errs[0].Kind = name + " of " + apiVersion
	return nil, d.errs
}

// typeMember returns the text and line of apiVersion or kind, and reports one that is missing.
func (d *decoder) typeMember(n *tree.Node, name, example string) (string, int) {
	at := (*path)(nil).field(name)
	i := -1
	for j, m := range n.Members {
		if m.Key == name {
			i = j // of duplicates the last counts
		}
	}
	switch {
	case i < 0 || n.Members[i].Value.Kind == tree.Null || n.Members[i].Value.Kind == tree.String && n.Members[i].Value.Text == "":
		d.errorf(at, n.Line, "required, such as %s", example)
		return "", n.Line
	case n.Members[i].Value.Kind != tree.String:
		d.wrong(n.Members[i].Value, "a string", at)
	}
	return n.Members[i].Value.Text, n.Members[i].Value.Line
}
