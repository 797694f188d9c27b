package kind

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/wire"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const metadataNumber protowire.Number = 1

// Meta decodes only the metadata of an object's bytes. Where field 1 occurs several times, as when a server has
// appended the resourceVersion, the occurrences merge, later ones winning, as protobuf demands. Bytes without metadata
// give an empty one.
func Meta(raw []byte) (*metav1.ObjectMeta, error) {
	m := &metav1.ObjectMeta{}
	err := wire.Each(raw, metadataNumber, func(part []byte) error {
		if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(part, m); err != nil {
			return fmt.Errorf("decode metadata: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// FieldString reads one selectable field of an object out of its bytes, without decoding the rest, in the form that
// field selectors compare; see wire.Field's Text. The error is for paths that the kind does not let be selected by, and
// for bytes that are not a message.
func FieldString(raw []byte, k *Kind, path string) (string, error) {
	f, ok := k.Field(path)
	if !ok {
		return "", fmt.Errorf("%s has no selectable field %q", k.GroupKind(), path)
	}
	text, err := f.Text(raw)
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", path, k.GroupKind(), err)
	}
	return text, nil
}
