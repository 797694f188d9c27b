package pipeline

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
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

// decodeAny unpacks an object of a request.
func (p *Pipeline) decodeAny(a *anypb.Any) (*kind.Kind, kind.Object, error) {
	t, err := p.targetOf(a)
	if err != nil {
		return nil, nil, err
	}
	k := t.kind
	o := k.New()
	if err := proto.Unmarshal(a.GetValue(), o); err != nil {
		return nil, nil, apierr.BadField("object.value", "does not decode as %s: %v", k.MessageName(), err)
	}
	if o.GetMetadata() == nil {
		return nil, nil, apierr.BadField("metadata", "is required")
	}
	if registry.KeyOfObject(k, o) != t.key {
		// Rights were checked for t.
		return nil, nil, apierr.Internal("%s decodes as %v, its encoded form as %v", k.MessageName(), registry.KeyOfObject(k, o), t.key)
	}
	return k, o, nil
}

// encodeAny packs an object for a response.
func encodeAny(k *kind.Kind, o kind.Object) (*anypb.Any, error) {
	b, err := proto.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", k.Name, o.GetMetadata().GetName(), err)
	}
	return &anypb.Any{TypeUrl: k.TypeURL(), Value: b}, nil
}

// Resolve finds the kind that a request names.
func (p *Pipeline) Resolve(group, name string) (*kind.Kind, error) {
	k, ok := p.Scheme.ByGroupKind(group, name)
	if !ok {
		return nil, apierr.BadField("kind", "no kind %q in group %q; xebec api-resources lists the kinds", Shortened(name), Shortened(group))
	}
	return k, nil
}

// ResolveReference checks that a request names one object.
func (p *Pipeline) ResolveReference(ref *apiv1.ObjectReference) (*kind.Kind, storage.Key, error) {
	if ref == nil {
		return nil, storage.Key{}, apierr.BadField("object", "is required")
	}
	k, err := p.Resolve(ref.GetGroup(), ref.GetKind())
	if err != nil {
		return nil, storage.Key{}, err
	}
	switch {
	case ref.GetName() == "":
		return nil, storage.Key{}, apierr.BadField("object.name", "is required")
	case k.Namespaced && ref.GetNamespace() == "":
		return nil, storage.Key{}, apierr.BadField("object.namespace", "is required: %s live in namespaces", k.Plural)
	case !k.Namespaced && ref.GetNamespace() != "":
		return nil, storage.Key{}, apierr.BadField("object.namespace", "must be empty: %s live in no namespace", k.Plural)
	}
	return k, registry.KeyOf(k, ref.GetNamespace(), ref.GetName()), nil
}
