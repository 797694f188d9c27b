package storage

import (
	"encoding/binary"
	"strconv"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/wire"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Field numbers the wire code below relies on; TestFieldNumbers holds them against the descriptors.
const (
	objectMetadata       = protowire.Number(1) // in every kind
	metaResourceVersion  = protowire.Number(6)
	metaManagedFields    = protowire.Number(17)
	anyTypeURL           = protowire.Number(1)
	anyValue             = protowire.Number(2)
	responseType         = protowire.Number(1)
	responseObject       = protowire.Number(2)
	responseVersion      = protowire.Number(3)
	responseInitialEnd   = protowire.Number(4)
	typeFieldLen         = 2 // tag and value of WatchResponse.type
	maxRevisionDigits    = 19
	maxVarintsInEnvelope = 8 * binary.MaxVarintLen32
)

// Object is one version of an object. All readers share it, and it is never modified: neither its
// fields nor the values that its methods return may be written to.
type Object struct {
	// Key names the object.
	Key Key
	// Bytes is the encoded message as stored, without a resourceVersion.
	Bytes []byte
	// Revision is the etcd revision of the change that made this version; a tombstone has the revision
	// of the deletion.
	Revision int64
	// CreateRevision is the etcd revision at which the object was created.
	CreateRevision int64
	// Lease is the lease that the object is deleted with, 0 for none.
	Lease int64

	// frame holds the object in the middle of an encoded WatchResponse:
	//
	//	type MODIFIED | object | resource_version | type ADDED
	//
	// Without the last field it is the frame of a MODIFIED event, without the first one of an ADDED
	// event: the order of fields on the wire is free. A tombstone has DELETED in the first place.
	// Bytes lies in it as well, so that one allocation serves storage, reads and watches.
	frame    []byte
	typeURL  string
	anyEnd   int32 // end of the embedded google.protobuf.Any in frame
	valStart int32 // Any.value in frame, ending at anyEnd

	any  atomic.Pointer[anypb.Any]
	meta atomic.Pointer[metav1.ObjectMeta]
}

// UnderLease returns a copy of the object that is deleted with a lease.
func (o *Object) UnderLease(lease int64) *Object {
	return &Object{
		Key: o.Key, Bytes: o.Bytes, Revision: o.Revision, CreateRevision: o.CreateRevision, Lease: lease,
		frame: o.frame, typeURL: o.typeURL, anyEnd: o.anyEnd, valStart: o.valStart,
	}
}

// newObject lays out an object. It copies value.
func newObject(typeURL string, key Key, value []byte, revision, createRevision, lease int64, first apiv1.EventType) *Object {
	var digits [maxRevisionDigits + 1]byte
	version := strconv.AppendInt(digits[:0], revision, 10)

	// metadata { resource_version }: merged by every decoder into the metadata already in value.
	versionField := protowire.SizeTag(metaResourceVersion) + protowire.SizeBytes(len(version))
	fragment := protowire.SizeTag(objectMetadata) + protowire.SizeBytes(versionField)
	valueLen := len(value) + fragment
	anyLen := protowire.SizeTag(anyTypeURL) + protowire.SizeBytes(len(typeURL)) +
		protowire.SizeTag(anyValue) + protowire.SizeBytes(valueLen)

	b := make([]byte, 0, len(value)+len(typeURL)+2*len(version)+2*typeFieldLen+maxVarintsInEnvelope)
	b = appendType(b, first)
	b = protowire.AppendTag(b, responseObject, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(anyLen))
	b = protowire.AppendTag(b, anyTypeURL, protowire.BytesType)
	b = protowire.AppendString(b, typeURL)
	b = protowire.AppendTag(b, anyValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(valueLen))
	valStart := len(b)
	b = append(b, value...)
	bytesEnd := len(b)
	b = protowire.AppendTag(b, objectMetadata, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(versionField))
	b = protowire.AppendTag(b, metaResourceVersion, protowire.BytesType)
	b = protowire.AppendBytes(b, version)
	anyEnd := len(b)
	b = protowire.AppendTag(b, responseVersion, protowire.BytesType)
	b = protowire.AppendBytes(b, version)
	b = appendType(b, apiv1.EventType_EVENT_TYPE_ADDED)

	return &Object{
		Key: key, Bytes: b[valStart:bytesEnd:bytesEnd],
		Revision: revision, CreateRevision: createRevision, Lease: lease,
		frame: b, typeURL: typeURL, anyEnd: int32(anyEnd), valStart: int32(valStart),
	}
}

func appendType(b []byte, t apiv1.EventType) []byte {
	b = protowire.AppendTag(b, responseType, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(t))
}

// tombstone is the object's last state as an event of its deletion, or of its ceasing to match,
// shows it.
func (o *Object) tombstone(revision int64) *Object {
	return newObject(o.typeURL, o.Key, o.Bytes, revision, o.CreateRevision, o.Lease, apiv1.EventType_EVENT_TYPE_DELETED)
}

// Any is the object as clients see it, with its resourceVersion.
func (o *Object) Any() *anypb.Any {
	if a := o.any.Load(); a != nil {
		return a
	}
	a := &anypb.Any{TypeUrl: o.typeURL, Value: o.frame[o.valStart:o.anyEnd:o.anyEnd]}
	if !o.any.CompareAndSwap(nil, a) {
		return o.any.Load()
	}
	return a
}

// Value is the encoded message with its resourceVersion: Any's value.
func (o *Object) Value() []byte { return o.frame[o.valStart:o.anyEnd:o.anyEnd] }

// Meta is the object's metadata with its resourceVersion, but without managedFields: they are most
// of the bytes and no filter reads them; decode Value to have them. It is decoded once. Metadata
// that can't be decoded reads as empty but for name, namespace and resourceVersion.
func (o *Object) Meta() *metav1.ObjectMeta {
	if m := o.meta.Load(); m != nil {
		return m
	}
	m := new(metav1.ObjectMeta)
	var lean []byte
	_ = wire.Each(o.Value(), objectMetadata, func(part []byte) error {
		for len(part) > 0 {
			num, _, n := protowire.ConsumeField(part)
			if n < 0 {
				return wire.ErrMalformed
			}
			if num != metaManagedFields {
				lean = append(lean, part[:n]...)
			}
			part = part[n:]
		}
		return nil
	})
	if err := proto.Unmarshal(lean, m); err != nil {
		m = &metav1.ObjectMeta{
			Name: o.Key.Name, Namespace: o.Key.Namespace, ResourceVersion: strconv.FormatInt(o.Revision, 10),
		}
	}
	if !o.meta.CompareAndSwap(nil, m) {
		return o.meta.Load()
	}
	return m
}

// Field reads a field as selectors compare it, without decoding the rest; see wire.Field's Text.
// A field that is not set reads as its zero value, as does every field after malformed bytes.
func (o *Object) Field(f wire.Field) string {
	text, _ := f.Text(o.Value())
	return text
}
