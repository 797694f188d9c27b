package codec

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
)

// compiledIn is the codec of the kinds that are compiled in.
var compiledIn = sync.OnceValue(func() *Codec { return New(kinds.NewScheme()) })

// Marshal is Codec.Marshal.
func Marshal(m proto.Message) ([]byte, error) { return compiledIn().Marshal(m) }

// MarshalYAML is Codec.MarshalYAML.
func MarshalYAML(m proto.Message) ([]byte, error) { return compiledIn().MarshalYAML(m) }

// Value is Codec.Value.
func Value(m proto.Message) (any, error) { return compiledIn().Value(m) }

// ValueWhole is Codec.ValueWhole.
func ValueWhole(m proto.Message) (any, error) { return compiledIn().ValueWhole(m) }

// Encode is Codec.Encode.
func Encode(m proto.Message) (*tree.Node, error) { return compiledIn().Encode(m) }

// EncodeWhole is Codec.EncodeWhole.
func EncodeWhole(m proto.Message) (*tree.Node, error) { return compiledIn().EncodeWhole(m) }

// Unmarshal is Codec.Unmarshal.
func Unmarshal(data []byte) (scheme.Object, error) { return compiledIn().Unmarshal(data) }

// UnmarshalInto is Codec.UnmarshalInto.
func UnmarshalInto(data []byte, m proto.Message) error { return compiledIn().UnmarshalInto(data, m) }

// FromValue is Codec.FromValue.
func FromValue(v any, m proto.Message) error { return compiledIn().FromValue(v, m) }

// Decode is Codec.Decode.
func Decode(n *tree.Node) (scheme.Object, error) { return compiledIn().Decode(n) }
