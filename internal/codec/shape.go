package codec

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// form is how a message stands in JSON.
type form uint8

const (
	formObject form = iota
	formQuantity
	formIntOrString
	formRaw
	formList
	formTimestamp
)

// shape is what the codec knows about a message type. It is derived from the descriptor alone and
// never changes.
type shape struct {
	form form
	// members are the members of the JSON object by name, with those of inline fields among them.
	members []*member
	byName  map[string]*member
}

// member is one member of a JSON object.
type member struct {
	name string
	// inline are the fields that lead from the message to the one that has the field.
	inline   []protoreflect.FieldDescriptor
	field    protoreflect.FieldDescriptor
	micro    bool
	noEffect string
	// since is the version of Kubernetes that brought the field, when it is later than the API served
	// here.
	since string
	// list is how elements of a list are identified when lists are merged, and keys by which of their
	// members.
	list metav1.ListType
	keys []string
	// unset is how Kubernetes writes the member when it is not set.
	unset unset
	// absent is what the member counts as, when it is not set, as part of such a key.
	absent string
}

// shapes caches shapes by descriptor. A descriptor determines its shape, so that the cache cannot
// go stale.
var shapes sync.Map // protoreflect.MessageDescriptor -> *shape

func shapeOf(desc protoreflect.MessageDescriptor) *shape {
	if s, ok := shapes.Load(desc); ok {
		return s.(*shape)
	}
	s := &shape{form: formOf(desc), byName: map[string]*member{}}
	s.add(desc, nil)
	slices.SortFunc(s.members, func(a, b *member) int { return cmp.Compare(a.name, b.name) })
	for _, m := range s.members {
		s.byName[m.name] = m
	}
	cached, _ := shapes.LoadOrStore(desc, s)
	return cached.(*shape)
}

func (s *shape) add(desc protoreflect.MessageDescriptor, inline []protoreflect.FieldDescriptor) {
	fields := desc.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		rules, _ := proto.GetExtension(field.Options(), metav1.E_Field).(*metav1.FieldRules)
		if rules.GetInline() {
			s.add(field.Message(), append(slices.Clip(inline), field))
			continue
		}
		s.members = append(s.members, &member{
			name:     field.JSONName(),
			inline:   inline,
			field:    field,
			micro:    rules.GetMicroTime(),
			noEffect: rules.GetNoEffect(),
			since:    rules.GetSince(),
			list:     rules.GetListType(),
			keys:     rules.GetListMapKeys(),
			absent:   rules.GetDefaultJson(),
			unset:    unsetFields[field.FullName()],
		})
	}
}

func formOf(desc protoreflect.MessageDescriptor) form {
	if desc.FullName() == "google.protobuf.Timestamp" {
		return formTimestamp
	}
	rules, _ := proto.GetExtension(desc.Options(), metav1.E_Message).(*metav1.MessageRules)
	switch rules.GetJsonForm() {
	case metav1.JsonForm_JSON_FORM_QUANTITY:
		return formQuantity
	case metav1.JsonForm_JSON_FORM_INT_OR_STRING:
		return formIntOrString
	case metav1.JsonForm_JSON_FORM_RAW:
		return formRaw
	case metav1.JsonForm_JSON_FORM_LIST:
		return formList
	}
	return formObject
}

// get returns the message that holds the member's field, and false when an inline message on the
// way is not set.
func (m *member) get(msg protoreflect.Message) (protoreflect.Message, bool) {
	for _, field := range m.inline {
		if !msg.Has(field) {
			return nil, false
		}
		msg = msg.Get(field).Message()
	}
	return msg, msg.Has(m.field)
}

// holder returns the message that holds the member's field, which is empty and not to be written to
// when an inline message on the way is not set.
func (m *member) holder(msg protoreflect.Message) protoreflect.Message {
	for _, field := range m.inline {
		msg = msg.Get(field).Message()
	}
	return msg
}

// mutable returns the message that holds the member's field, with the inline messages on the way
// set.
func (m *member) mutable(msg protoreflect.Message) protoreflect.Message {
	for _, field := range m.inline {
		msg = msg.Mutable(field).Message()
	}
	return msg
}

// nearest returns the known name that a misspelt one most likely stands for, or "" when none is
// near: one that differs in letter case alone, or else by at most a third of its letters.
func (s *shape) nearest(name string, also ...string) string {
	// Longer names are no field's, and the distance costs their length.
	if len(name) > 80 {
		return ""
	}
	best, bestDistance := "", len(name)+1
	for _, m := range s.members {
		also = append(also, m.name)
	}
	for _, known := range also {
		d := distance(strings.ToLower(name), strings.ToLower(known))
		if d <= max(len(known), len(name))/3 && d < bestDistance {
			best, bestDistance = known, d
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance (optimal string alignment): how many letters have to
// be inserted, dropped, replaced or swapped with their neighbour to make b from a.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
