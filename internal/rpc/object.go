package rpc

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Object returns, for a log line, which object a request is about, such as "Pod default/web", or as much of that as
// the request tells, without decoding objects that it holds.
func Object(req any) string {
	switch r := req.(type) {
	case interface{ GetObject() *apiv1.ObjectReference }:
		ref := r.GetObject()
		return ObjectName(ref.GetKind(), ref.GetNamespace(), ref.GetName())
	case interface{ GetObject() *anypb.Any }:
		return AnyObject(r.GetObject().GetTypeUrl(), r.GetObject().GetValue())
	case interface {
		GetKind() string
		GetNamespace() string
	}:
		return ObjectName(r.GetKind(), r.GetNamespace(), "")
	case interface {
		GetNamespace() string
		GetName() string
	}:
		return ObjectName("", r.GetNamespace(), r.GetName())
	}
	return ""
}

// AnyObject returns which object an encoded one of the given type URL is, as Object does.
func AnyObject(typeURL string, value []byte) string {
	kind := typeURL[strings.LastIndexByte(typeURL, '.')+1:]
	meta := BytesField(value, 1)
	return ObjectName(kind, string(BytesField(meta, 3)), string(BytesField(meta, 1)))
}

// ObjectName returns "kind namespace/name", without the parts that are empty.
func ObjectName(kind, namespace, name string) string {
	var b strings.Builder
	b.WriteString(kind)
	if namespace == "" && name == "" {
		return b.String()
	}
	if kind != "" {
		b.WriteByte(' ')
	}
	if namespace != "" {
		b.WriteString(namespace)
		b.WriteByte('/')
	}
	b.WriteString(name)
	return b.String()
}

// BytesField returns the first occurrence of a string, bytes or message field in an encoded message, nil when it has
// none. Of a message that is cut off it returns what is there.
func BytesField(message []byte, number protowire.Number) []byte {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		message = message[n:]
		if num == number && typ == protowire.BytesType {
			size, n := protowire.ConsumeVarint(message)
			if n < 0 {
				return nil
			}
			value := message[n:]
			return value[:min(size, uint64(len(value)))]
		}
		if n = protowire.ConsumeFieldValue(num, typ, message); n < 0 {
			return nil
		}
		message = message[n:]
	}
	return nil
}
