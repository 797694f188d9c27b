package codec

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Warnings returns a line for every field that is set and has no effect in this version: its path and what to expect,
// in the order of the JSON. A field within lists is reported for each element that sets it.
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
		value := holder.Get(m.field)
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
