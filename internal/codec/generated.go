package codec

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// generated returns a message of the generated type M. Within objects of dynamic kinds messages of
// that type are dynamic: then it is a copy, made in fresh, which must be empty.
func generated[M proto.Message](msg protoreflect.Message, fresh M) M {
	if m, ok := msg.Interface().(M); ok {
		return m
	}
	copyTo(fresh, msg.Interface())
	return fresh
}

// fill calls f with a message of the generated type M, in whose place msg may be dynamic: then f
// changes fresh, which must be empty and is copied to msg.
func fill[M proto.Message](msg protoreflect.Message, fresh M, f func(M)) {
	if m, ok := msg.Interface().(M); ok {
		f(m)
		return
	}
	f(fresh)
	copyTo(msg.Interface(), fresh)
}

// copyTo copies a message to one of another Go type and of the same protobuf type.
func copyTo(to, from proto.Message) {
	raw, err := proto.Marshal(from)
	if err == nil {
		err = proto.Unmarshal(raw, to)
	}
	if err != nil {
		proto.Reset(to) // Only text that is not UTF-8 fails, and decoding has refused that.
	}
}
