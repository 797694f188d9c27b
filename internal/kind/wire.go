package kind

import (
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const metadataNumber protowire.Number = 1

var errTruncated = errors.New("truncated or malformed protobuf")

// Meta decodes only the metadata of an object's bytes. Where field 1 occurs several times, as when a server has
// appended the resourceVersion, the occurrences merge, later ones winning, as protobuf demands. Bytes without metadata
// give an empty one.
func Meta(raw []byte) (*metav1.ObjectMeta, error) {
	m := &metav1.ObjectMeta{}
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, errTruncated
		}
		raw = raw[n:]
		if num != metadataNumber || typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, raw); n < 0 {
				return nil, errTruncated
			}
			raw = raw[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(raw)
		if n < 0 {
			return nil, errTruncated
		}
		raw = raw[n:]
		if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(v, m); err != nil {
			return nil, fmt.Errorf("decode metadata: %w", err)
		}
	}
	return m, nil
}

// FieldString reads one selectable field of an object out of its bytes, without decoding the rest, in the form that
// field selectors compare: strings as they are, bools as true and false, numbers in decimal. A field that is not set
// reads as its zero value: "", false, 0. The error is for paths that the kind does not let be selected by, and for
// bytes that are no message.
func FieldString(raw []byte, k *Kind, path string) (string, error) {
	f, ok := index().fields[k][path]
	if !ok {
		return "", fmt.Errorf("%s has no selectable field %q", k.GroupKind(), path)
	}
	var v leaf
	if err := v.find(raw, f.path); err != nil {
		return "", fmt.Errorf("read %s of %s: %w", path, k.GroupKind(), err)
	}
	switch f.kind {
	case protoreflect.BoolKind:
		return strconv.FormatBool(v.number != 0), nil
	case protoreflect.StringKind:
		return string(v.bytes), nil
	default:
		return strconv.FormatInt(int64(v.number), 10), nil
	}
}

// wireField is a selectable field, resolved against its message.
type wireField struct {
	path []protowire.Number
	kind protoreflect.Kind
}

// resolve finds the type of the field at the end of a path. It panics on a path that does not lead to a string, a bool
// or a signed number: the table is wrong then, and a test says so first.
func resolve(k *Kind, path []protowire.Number) wireField {
	d := k.New().ProtoReflect().Descriptor()
	for i, n := range path {
		f := d.Fields().ByNumber(n)
		switch {
		case f == nil || f.IsList() || f.IsMap():
		case i < len(path)-1 && f.Kind() == protoreflect.MessageKind:
			d = f.Message()
			continue
		case i == len(path)-1:
			switch f.Kind() {
			case protoreflect.StringKind, protoreflect.BoolKind, protoreflect.Int32Kind, protoreflect.Int64Kind:
				return wireField{path, f.Kind()}
			}
		}
		break
	}
	panic(fmt.Sprintf("kind: %v is no path to a selectable field of %s", path, k))
}

// leaf is the value last seen for a field; the zero leaf is a field that is not set.
type leaf struct {
	bytes  []byte
	number uint64
}

// find walks a message down a path. Messages that occur several times merge, so every occurrence is looked into, and
// the last value wins.
func (v *leaf) find(raw []byte, path []protowire.Number) error {
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return errTruncated
		}
		raw = raw[n:]
		switch {
		case num == path[0] && typ == protowire.BytesType:
			b, n := protowire.ConsumeBytes(raw)
			if n < 0 {
				return errTruncated
			}
			raw = raw[n:]
			if len(path) > 1 {
				if err := v.find(b, path[1:]); err != nil {
					return err
				}
			} else {
				v.bytes = b
			}
		case num == path[0] && typ == protowire.VarintType && len(path) == 1:
			x, n := protowire.ConsumeVarint(raw)
			if n < 0 {
				return errTruncated
			}
			raw = raw[n:]
			v.number = x
		default:
			if n = protowire.ConsumeFieldValue(num, typ, raw); n < 0 {
				return errTruncated
			}
			raw = raw[n:]
		}
	}
	return nil
}
