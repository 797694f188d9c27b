// Package codec turns messages into JSON and YAML and back. It is driven by the descriptors and
// their options (xebec.meta.v1.field, xebec.meta.v1.message) and by a scheme, which has the kinds
// by apiVersion, kind and message.
//
// What it writes and reads is Kubernetes' JSON, not protobuf's: 64-bit integers are numbers, fields
// with implicit presence are left out at their zero value, but for EncodeWhole where Kubernetes'
// types do not, null counts as absent, times have whole seconds, quantities and int-or-string
// values are bare. Reading is strict: an unknown field, a duplicate key, a wrong type or a number
// out of range is an error, and all errors of a document are reported together, as Errors.
//
// Every text and every Go value becomes a tree.Node first, so that there is one decoder and one
// encoder.
package codec

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Codec reads and writes messages, and objects of the kinds of a scheme with their apiVersion and
// kind. It is safe for concurrent use. The functions of the package of the same names have the
// kinds that are compiled in.
type Codec struct{ kinds *scheme.Scheme }

// New returns a codec for objects of the kinds of a scheme, as they are at the time of each call.
func New(kinds *scheme.Scheme) *Codec { return &Codec{kinds} }

// Marshal returns the message as compact JSON, in the order of Encode. An object begins with its
// apiVersion and kind.
func (c *Codec) Marshal(m proto.Message) ([]byte, error) {
	n, err := c.Encode(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return n.JSON(), nil
}

// MarshalYAML returns the message as one YAML document, in the order of Encode and the style of
// kubectl.
func (c *Codec) MarshalYAML(m proto.Message) ([]byte, error) {
	n, err := c.Encode(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return n.YAML()
}

// Value returns the message as a generic JSON value, which belongs to the caller: map[string]any,
// []any, string, bool, int64 and float64. An object has its apiVersion and kind.
func (c *Codec) Value(m proto.Message) (any, error) {
	n, err := c.Encode(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return n.Value(), nil
}

// ValueWhole is Value of what EncodeWhole returns: null, as nil, is among the values.
func (c *Codec) ValueWhole(m proto.Message) (any, error) {
	n, err := c.EncodeWhole(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return n.Value(), nil
}

// Unmarshal reads one object from JSON, whose apiVersion and kind say what it is. Errors are of
// type Errors.
func (c *Codec) Unmarshal(data []byte) (scheme.Object, error) {
	n, err := parse(data)
	if err != nil {
		return nil, err
	}
	return c.Decode(n)
}

// UnmarshalInto reads JSON into m, which is emptied first. When m is an object the text may name
// its apiVersion and kind, which must then be m's. Errors are of type Errors, and m is then to be
// thrown away.
func (c *Codec) UnmarshalInto(data []byte, m proto.Message) error {
	n, err := parse(data)
	if err != nil {
		return err
	}
	return c.DecodeInto(n, m)
}

// FromValue is UnmarshalInto for a generic JSON value, as Value or encoding/json make it.
func (c *Codec) FromValue(v any, m proto.Message) error {
	n, err := tree.FromValue(v)
	if err != nil {
		return Errors{{Message: err.Error()}}
	}
	return c.DecodeInto(n, m)
}

// kindOf returns the kind of a message that is an object of a kind of the scheme, or that carries
// its kind.
func kindOf(kinds *scheme.Scheme, m protoreflect.Message) (*scheme.Kind, bool) {
	if d, ok := m.Interface().(*scheme.Dynamic); ok {
		return d.Kind(), true
	}
	return kinds.ByMessage(m.Descriptor().FullName())
}

func parse(data []byte) (*tree.Node, error) {
	n, err := tree.ParseJSON(data)
	if syntax, ok := errors.AsType[*tree.SyntaxError](err); ok {
		return nil, Errors{{Line: syntax.Line, Message: syntax.Message}}
	}
	return n, err
}
