package scheme

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Dynamic is an object of a kind whose message type was made at run time. It carries its kind.
type Dynamic struct {
	message *dynamicpb.Message
	kind    *Kind
}

// Constructor returns the New of a kind with a message type that was made at run time. Field 1 of
// the type must be of the type xebec.meta.v1.ObjectMeta.
func Constructor(k *Kind, d protoreflect.MessageDescriptor) func() Object {
	return func() Object { return &Dynamic{dynamicpb.NewMessage(d), k} }
}

// Kind returns the kind of the object.
func (d *Dynamic) Kind() *Kind { return d.kind }

// ProtoReflect implements proto.Message.
func (d *Dynamic) ProtoReflect() protoreflect.Message { return dynamicReflection{d.message, d} }

// GetMetadata returns the metadata, which belongs to the object; nil when it has none. The first
// call after decoding changes how the object holds them: an object that goroutines share must have
// seen one.
func (d *Dynamic) GetMetadata() *metav1.ObjectMeta {
	f := d.message.Descriptor().Fields().ByNumber(1)
	if !d.message.Has(f) {
		return nil
	}
	held := d.message.Get(f).Message().Interface()
	if m, ok := held.(*metav1.ObjectMeta); ok {
		return m
	}
	m := &metav1.ObjectMeta{}
	raw, err := proto.Marshal(held)
	if err == nil {
		err = proto.Unmarshal(raw, m)
	}
	if err != nil {
		return nil // Only text that is not UTF-8 fails, and decoding has refused that.
	}
	d.message.Set(f, protoreflect.ValueOfMessage(m.ProtoReflect()))
	return m
}

// dynamicReflection makes copies of a Dynamic, as proto.Clone does, Dynamic too.
type dynamicReflection struct {
	protoreflect.Message
	object *Dynamic
}

func (r dynamicReflection) New() protoreflect.Message {
	return (&Dynamic{dynamicpb.NewMessage(r.Descriptor()), r.object.kind}).ProtoReflect()
}

func (r dynamicReflection) Interface() protoreflect.ProtoMessage { return r.object }

func (r dynamicReflection) Type() protoreflect.MessageType {
	return dynamicType{r.Message.Type(), r.object.kind}
}

type dynamicType struct {
	protoreflect.MessageType
	kind *Kind
}

func (t dynamicType) New() protoreflect.Message {
	return Constructor(t.kind, t.Descriptor())().ProtoReflect()
}

func (t dynamicType) Zero() protoreflect.Message { return t.New() }
