package registry

import (
	"crypto/rand"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// maxObjectBytes is the largest stored object: what etcd takes in one request by default, 1.5 MiB.
const maxObjectBytes = 1536 << 10

// KeyOf is the storage key of an object. It is the same in all versions of a kind.
func KeyOf(k *scheme.Kind, namespace, name string) storage.Key {
	k = k.Stored()
	return storage.Key{Group: k.Group, Kind: k.Name, Namespace: namespace, Name: name}
}

// KeyOfObject is KeyOf for the namespace and name in an object's metadata.
func KeyOfObject(k *scheme.Kind, o scheme.Object) storage.Key {
	return KeyOf(k, o.GetMetadata().GetNamespace(), o.GetMetadata().GetName())
}

// Decode returns a stored object in the version that is stored, with the revision of its last write
// as resourceVersion.
func Decode(k *scheme.Kind, stored *storage.Object) (scheme.Object, error) {
	o := k.Stored().New()
	if err := proto.Unmarshal(stored.Bytes, o); err != nil {
		return nil, fmt.Errorf("decode stored %s %s: %w", k.Name, stored.Key.Name, err)
	}
	if o.GetMetadata() == nil {
		return nil, fmt.Errorf("stored %s %s has no metadata", k.Name, stored.Key.Name)
	}
	o.GetMetadata().ResourceVersion = strconv.FormatInt(stored.Revision, 10)
	return o, nil
}

// Encode returns the object's stored form: without resourceVersion, which is the revision of the
// write. An object that is too large for etcd is an error of the API.
func Encode(k *scheme.Kind, o scheme.Object) ([]byte, error) {
	meta := o.GetMetadata()
	version := meta.ResourceVersion
	meta.ResourceVersion = ""
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(o)
	meta.ResourceVersion = version
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", k.Name, meta.GetName(), err)
	}
	if len(b) > maxObjectBytes {
		return nil, apierr.TooLarge(k, meta.GetName(), len(b), maxObjectBytes)
	}
	return b, nil
}

// IsPod reports whether a kind is that of pods.
func IsPod(k *scheme.Kind) bool { return k.Name == "Pod" && k.Group == "" }

// NodeOf is the node that a stored pod is bound to; other objects have none.
func NodeOf(k *scheme.Kind, o *storage.Object) string {
	if !IsPod(k) {
		return ""
	}
	field, _ := k.Field("spec.nodeName")
	return o.Field(field)
}

// suffixAlphabet has no vowels and no characters that look alike, so that suffixes neither form
// words nor are misread.
const suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789"

// NameSuffix is five random characters, as generateName appends them.
func NameSuffix() string {
	b := make([]byte, 5)
	rand.Read(b)
	for i := range b {
		b[i] = suffixAlphabet[int(b[i])%len(suffixAlphabet)]
	}
	return string(b)
}
