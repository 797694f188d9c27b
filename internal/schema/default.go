package schema

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Default sets all fields of a message and of the messages below it that are not set and have a
// default. Messages that are not set stay absent unless they have a default themselves.
func Default(m proto.Message) {
	planOf(m.ProtoReflect().Descriptor()).fill(m.ProtoReflect())
}

func (p *plan) fill(m protoreflect.Message) {
	for _, s := range p.defaults {
		has := m.Has(s.field)
		if !has && s.value.IsValid() {
			s.set(m)
			has = s.shape == shapeMessage
		}
		if !has || s.below == nil || len(s.below.defaults) == 0 {
			continue
		}
		if s.shape == shapeMessage {
			s.below.fill(m.Get(s.field).Message())
			continue
		}
		list := m.Get(s.field).List()
		for i := range list.Len() {
			s.below.fill(list.Get(i).Message())
		}
	}
}

func (s *step) set(m protoreflect.Message) {
	switch s.shape {
	case shapeMessage:
		m.Mutable(s.field)
	case shapeLeaf:
		m.Set(s.field, protoreflect.ValueOfMessage(proto.Clone(s.value.Message().Interface()).ProtoReflect()))
	default:
		m.Set(s.field, s.value)
	}
}
