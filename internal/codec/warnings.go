package codec

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Warnings returns a line for every field that is set and has no effect in this version, its path
// and what to expect, for every field of a later version of Kubernetes' API, and for every element
// of a list that has its keys in common with one before it; in the order of the JSON. A field
// within lists is reported for each element that sets it.
func Warnings(m proto.Message) []string {
	var lines []string
	warn(m.ProtoReflect(), nil, &lines)
	return lines
}

func warn(msg protoreflect.Message, at *path, lines *[]string) {
	s := shapeOf(msg.Descriptor())
	if s.form != formObject && s.form != formList {
		return
	}
	for _, m := range s.members {
		holder, ok := m.get(msg)
		if !ok {
			continue
		}
		here := at
		if s.form == formObject {
			here = at.field(m.name)
		}
		if m.noEffect != "" {
			*lines = append(*lines, here.String()+": "+strings.TrimSpace(m.noEffect))
			continue
		}
		if m.since != "" {
			*lines = append(
				*lines,
				fmt.Sprintf(
					"%s: the field is of Kubernetes %s, which is later than the API served here: other clusters of that API refuse it",
					here,
					m.since,
				),
			)
		}
		value := holder.Get(m.field)
		if m.list != metav1.ListType_LIST_TYPE_UNSPECIFIED {
			warnDuplicates(value.List(), m, here, lines)
		}
		switch {
		case m.field.IsMap():
			if m.field.MapValue().Kind() != protoreflect.MessageKind {
				continue
			}
			for key, v := range sortedMap(value.Map()) {
				warn(v.Message(), here.key(key.String()), lines)
			}
		case m.field.Kind() != protoreflect.MessageKind:
		case m.field.IsList():
			for i := range value.List().Len() {
				warn(value.List().Get(i).Message(), here.item(i), lines)
			}
		default:
			warn(value.Message(), here, lines)
		}
	}
}

// warnDuplicates reports elements that have the same keys when the list is merged.
func warnDuplicates(list protoreflect.List, m *member, at *path, lines *[]string) {
	if list.Len() < 2 {
		return
	}
	first := map[string]int{}
	for i := range list.Len() {
		key := keyText(list.Get(i), m)
		before, twice := first[key]
		switch {
		case !twice:
			first[key] = i
		case m.list == metav1.ListType_LIST_TYPE_SET:
			*lines = append(*lines, fmt.Sprintf("%s: the same value as %s", at.item(i), at.item(before)))
		default:
			*lines = append(
				*lines,
				fmt.Sprintf(
					"%s: the same %s as %s: both are kept, and where only one can have effect it is the last",
					at.item(i),
					key,
					at.item(before),
				),
			)
		}
	}
}

// keyText writes what tells an element from others: name "A", containerPort 80 and protocol "TCP".
func keyText(element protoreflect.Value, m *member) string {
	if m.list == metav1.ListType_LIST_TYPE_SET {
		return element.String()
	}
	s := shapeOf(m.field.Message())
	parts := make([]string, 0, len(m.keys))
	for _, key := range m.keys {
		text := ""
		if part := s.byName[key]; part != nil {
			holder, ok := part.get(element.Message())
			switch {
			case !ok:
				text = part.absent
			case part.field.Kind() == protoreflect.StringKind:
				text = strconv.Quote(holder.Get(part.field).String())
			default:
				text = holder.Get(part.field).String()
			}
		}
		parts = append(parts, strings.TrimSpace(key+" "+text))
	}
	return strings.Join(parts, " and ")
}
