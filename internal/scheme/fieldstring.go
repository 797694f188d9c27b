package scheme

import "fmt"

// FieldString reads one selectable field of an object out of its bytes, without decoding the rest,
// in the form that field selectors compare; see wire.Field's Text. The error is for paths that the
// kind does not let be selected by, and for bytes that are not a message.
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
