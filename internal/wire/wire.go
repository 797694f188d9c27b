// Package wire reads single fields of encoded protobuf messages without decoding the rest: what
// field selectors compare, and the metadata that rights depend on.
//
// It reads as protobuf decodes: where a field occurs several times the last value counts, and the
// occurrences of an embedded message merge.
package wire

import (
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ErrMalformed says that the bytes are not an encoded message.
var ErrMalformed = errors.New("truncated or malformed protobuf")

// Field is a scalar field somewhere in a message, resolved by Resolve. The zero Field reads as "".
type Field struct {
	path []protowire.Number
	kind protoreflect.Kind
	enum protoreflect.EnumDescriptor
}

// Resolve finds the field at the end of a path of field numbers. It fails on a path that does not
// lead, through single messages, to a single string, bool, enum or integer that is encoded as a
// varint without zigzag.
func Resolve(message protoreflect.MessageDescriptor, path ...protowire.Number) (Field, error) {
	d := message
	for i, number := range path {
		f := d.Fields().ByNumber(number)
		if f == nil || f.IsList() || f.IsMap() {
			break
		}
		if i < len(path)-1 {
			if f.Kind() != protoreflect.MessageKind {
				break
			}
			d = f.Message()
			continue
		}
		switch f.Kind() {
		case protoreflect.StringKind, protoreflect.BoolKind, protoreflect.Int32Kind, protoreflect.Int64Kind,
			protoreflect.Uint32Kind, protoreflect.Uint64Kind:
			return Field{path: path, kind: f.Kind()}, nil
		case protoreflect.EnumKind:
			return Field{path: path, kind: f.Kind(), enum: f.Enum()}, nil
		}
	}
	return Field{}, fmt.Errorf("%v leads to no string, bool, enum or integer of %s", path, message.FullName())
}

// Text reads the field of an encoded message in the form that field selectors compare: strings as
// they are, bools as true and false, enums by the name of their value, integers in decimal. A field
// that is not set reads as its zero value: "", false, 0. The error is ErrMalformed; the text is
// then what was found before the fault.
func (f Field) Text(message []byte) (string, error) {
	if len(f.path) == 0 {
		return "", nil
	}
	var v leaf
	err := v.find(message, f.path)
	switch f.kind {
	case protoreflect.StringKind:
		return string(v.bytes), err
	case protoreflect.BoolKind:
		return strconv.FormatBool(v.number != 0), err
	case protoreflect.EnumKind:
		if value := f.enum.Values().ByNumber(protoreflect.EnumNumber(int32(v.number))); value != nil {
			return string(value.Name()), err
		}
		return strconv.FormatInt(int64(int32(v.number)), 10), err
	case protoreflect.Int32Kind:
		return strconv.FormatInt(int64(int32(v.number)), 10), err
	case protoreflect.Uint32Kind:
		return strconv.FormatUint(uint64(uint32(v.number)), 10), err
	case protoreflect.Uint64Kind:
		return strconv.FormatUint(v.number, 10), err
	}
	return strconv.FormatInt(int64(v.number), 10), err
}

// String reads the string at a path of field numbers of an encoded message, "" when it is not set.
// The path is not checked against a message type. The error is ErrMalformed.
func String(message []byte, path ...protowire.Number) (string, error) {
	var v leaf
	err := v.find(message, path)
	return string(v.bytes), err
}

// Head is String for the first bytes of an encoded message, which may end within a field: of a
// field that is cut off it reads what is there.
func Head(message []byte, path ...protowire.Number) string {
	v := leaf{cut: true}
	_ = v.find(message, path)
	return string(v.bytes)
}

// Each calls f with the contents of every occurrence of a length-delimited field of an encoded
// message, in their order, until f fails. It returns f's error, or ErrMalformed.
func Each(message []byte, number protowire.Number, f func([]byte) error) error {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return ErrMalformed
		}
		message = message[n:]
		if num != number || typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, message); n < 0 {
				return ErrMalformed
			}
			message = message[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return ErrMalformed
		}
		message = message[n:]
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// leaf is the value last seen for a field; the zero leaf is a field that is not set.
type leaf struct {
	bytes  []byte
	number uint64
	// cut says that the message may end within a field.
	cut bool
}

// consumeBytes is protowire.ConsumeBytes; of a message that may be cut off it returns what is
// there.
func (v *leaf) consumeBytes(raw []byte) ([]byte, int) {
	b, n := protowire.ConsumeBytes(raw)
	if n >= 0 || !v.cut {
		return b, n
	}
	if _, n = protowire.ConsumeVarint(raw); n < 0 {
		return nil, n
	}
	return raw[n:], len(raw)
}

// find walks a message down a path. Messages that occur several times merge, so every occurrence is
// looked into, and the last value wins.
func (v *leaf) find(raw []byte, path []protowire.Number) error {
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return ErrMalformed
		}
		raw = raw[n:]
		switch {
		case num == path[0] && typ == protowire.BytesType:
			b, n := v.consumeBytes(raw)
			if n < 0 {
				return ErrMalformed
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
				return ErrMalformed
			}
			raw = raw[n:]
			v.number = x
		default:
			if n = protowire.ConsumeFieldValue(num, typ, raw); n < 0 {
				return ErrMalformed
			}
			raw = raw[n:]
		}
	}
	return nil
}
