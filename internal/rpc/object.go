package rpc

import (
	"strings"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/wire"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// Object returns, for a log line, which object a request is about, such as "Pod default/web", or as
// much of that as the request tells, without decoding objects that it holds.
func Object(req any) string {
	switch r := req.(type) {
	case interface{ GetObject() *apiv1.ObjectReference }:
		ref := r.GetObject()
		return ObjectName(ref.GetKind(), ref.GetNamespace(), ref.GetName())
	case interface{ GetObject() *anypb.Any }:
		value := r.GetObject().GetValue()
		return ObjectName(KindOf(r.GetObject().GetTypeUrl()), wire.Head(value, 1, 3), wire.Head(value, 1, 1))
	case interface{ GetEviction() *policyv1.Eviction }:
		m := r.GetEviction().GetMetadata()
		return ObjectName("Pod", m.GetNamespace(), m.GetName())
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

// KindOf returns the kind of an object by the type URL of its encoding, such as "Pod".
func KindOf(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

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
