package pipeline

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// ParseRevision reads a resourceVersion of a request.
func ParseRevision(field, s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return 0, apierr.BadField(field, "%q is not a resourceVersion: it is a positive decimal number that the API returned", s)
	}
	return n, nil
}

// decodeAny decodes the object of a request, of which t is the target, in the version that it was
// sent in.
func decodeAny(t target, a *anypb.Any) (scheme.Object, error) {
	k := t.kind
	o := k.New()
	if err := proto.Unmarshal(a.GetValue(), o); err != nil {
		return nil, apierr.BadField("object.value", "does not decode as %s: %v", k.MessageName(), err)
	}
	if o.GetMetadata() == nil {
		return nil, apierr.BadField("metadata", "is required")
	}
	if registry.KeyOfObject(k, o) != t.key {
		// Rights were checked for t.
		return nil, apierr.Internal("%s decodes as %v, its encoded form as %v", k.MessageName(), registry.KeyOfObject(k, o), t.key)
	}
	return o, nil
}

// decodeStored is decodeAny with the object in the version that is stored.
func decodeStored(t target, a *anypb.Any) (scheme.Object, error) {
	o, err := decodeAny(t, a)
	if err != nil {
		return nil, err
	}
	return toStored(t.kind, o)
}

// isObjectOf reports whether an object that was decoded from JSON is the one of a target.
func isObjectOf(t target, o scheme.Object) bool {
	return o.ProtoReflect().Descriptor().FullName() == t.kind.MessageName() &&
		o.GetMetadata() != nil && registry.KeyOfObject(t.kind, o) == t.key
}

// toStored converts an object of a request to the version that is stored, once the defaults of its
// own version are set.
func toStored(asked *scheme.Kind, o scheme.Object) (scheme.Object, error) {
	if asked.Conversion == nil {
		return o, nil
	}
	if asked.Rules != nil {
		asked.Default(o)
	}
	stored, err := asked.ToStored(o)
	if err != nil {
		return nil, apierr.BadField("object.value", "%v", err)
	}
	return stored, nil
}

// encodeAny packs an object, which is of the stored version, for a response in the asked one.
func encodeAny(asked *scheme.Kind, o scheme.Object) (*anypb.Any, error) {
	shown, err := asked.FromStored(o)
	if err != nil {
		return nil, err
	}
	b, err := proto.Marshal(shown)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", asked.Name, o.GetMetadata().GetName(), err)
	}
	return &anypb.Any{TypeUrl: asked.TypeURL(), Value: b}, nil
}

// EncodeStored packs a stored object for a response in the asked version.
func EncodeStored(asked *scheme.Kind, stored *storage.Object) (*anypb.Any, error) {
	if asked.Conversion == nil {
		return stored.Any(), nil
	}
	o, err := registry.Decode(asked, stored)
	if err != nil {
		return nil, err
	}
	return encodeAny(asked, o)
}

// Resolve finds the kind that a request names. An empty version is the one that is stored.
func (p *Pipeline) Resolve(group, version, name string) (*scheme.Kind, error) {
	if version == "" {
		if k, ok := p.Scheme.ByGroupKind(group, name); ok {
			return k, nil
		}
		return nil, apierr.BadField("kind", "no kind %q in group %q; xebec api-resources lists the kinds", Shortened(name), Shortened(group))
	}
	if k, ok := p.Scheme.ByGVK(scheme.GVK{Group: group, Version: version, Kind: name}); ok {
		return k, nil
	}
	return nil, apierr.BadField("kind", "no kind %q in version %q of group %q; xebec api-resources lists the kinds",
		Shortened(name), Shortened(version), Shortened(group))
}

// ResolveReference checks that a request names one object.
func (p *Pipeline) ResolveReference(ref *apiv1.ObjectReference) (*scheme.Kind, storage.Key, error) {
	if ref == nil {
		return nil, storage.Key{}, apierr.BadField("object", "is required")
	}
	k, err := p.Resolve(ref.GetGroup(), ref.GetVersion(), ref.GetKind())
	if err != nil {
		return nil, storage.Key{}, err
	}
	switch {
	case ref.GetName() == "":
		return nil, storage.Key{}, apierr.BadField("object.name", "is required")
	case k.Namespaced && ref.GetNamespace() == "":
		return nil, storage.Key{}, apierr.BadField("object.namespace", "is required: %s are namespaced", k.Plural)
	case !k.Namespaced && ref.GetNamespace() != "":
		return nil, storage.Key{}, apierr.BadField("object.namespace", "must be empty: %s have no namespace", k.Plural)
	}
	return k, registry.KeyOf(k, ref.GetNamespace(), ref.GetName()), nil
}
