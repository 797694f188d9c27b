package pipeline

import (
	"context"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/internal/wire"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// A caller's right is checked before anything is done whose cost the caller chooses: selectors
// parsed, objects and patches decoded, the past read from etcd. What the check needs of an object,
// target reads from its encoded form.

// target is what a write is about.
type target struct {
	// kind is the version of the kind that the request speaks of.
	kind *scheme.Kind
	key  storage.Key
	// node is the node that a pod of the request is bound to.
	node string
}

// Attributes are what a request asks to do to objects of a kind.
func Attributes(k *scheme.Kind, action authz.Action, namespace, name string) authz.Attributes {
	return authz.Attributes{
		Verb: action.Verb(), Group: k.Group, Resource: k.Plural, Subresource: action.Subresource(),
		Namespace: namespace, Name: name,
	}
}

func (t target) ask(action authz.Action) authz.Attributes {
	return Attributes(t.kind, action, t.key.Namespace, t.key.Name)
}

// targetOf tells what an object of a request is, without decoding it.
func (p *Pipeline) targetOf(a *anypb.Any) (target, error) {
	if a == nil {
		return target{}, apierr.BadField("object", "is required")
	}
	k, ok := p.Scheme.ByTypeURL(a.GetTypeUrl())
	if !ok {
		return target{}, apierr.BadField("object.typeUrl", "no kind has the type %q; xebec api-resources lists the kinds", Shortened(a.GetTypeUrl()))
	}
	texts := make([]string, 0, 3)
	for _, path := range []string{"metadata.namespace", "metadata.name", "spec.nodeName"} {
		if path == "spec.nodeName" && !registry.IsPod(k) {
			break
		}
		text, err := scheme.FieldString(a.GetValue(), k, path)
		if err != nil {
			return target{}, apierr.BadField("object.value", "does not decode as %s: %v", k.MessageName(), wire.ErrMalformed)
		}
		texts = append(texts, text)
	}
	t := target{kind: k, key: registry.KeyOf(k, texts[0], texts[1])}
	if registry.IsPod(k) {
		t.node = texts[2]
	}
	return t, nil
}

// Shortened is a text of a request as an error repeats it.
func Shortened(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// maxManager is how long the name of a field manager may be, as in Kubernetes.
const maxManager = 128

// checkManager refuses names of field managers that Kubernetes refuses.
func checkManager(name string) error {
	if len(name) > maxManager {
		return apierr.BadField("fieldManager", "must not be longer than %d bytes, has %d", maxManager, len(name))
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return apierr.BadField("fieldManager", "must hold printable characters only, has another at byte %d: %q", i, name)
	}
	return nil
}

// targetOfOperation returns what an operation of a transaction is about, and the action that it
// needs a right to.
func (p *Pipeline) targetOfOperation(op *apiv1.Operation) (target, authz.Action, error) {
	referred := func(ref *apiv1.ObjectReference, action authz.Action) (target, authz.Action, error) {
		k, key, err := p.ResolveReference(ref)
		return target{kind: k, key: key}, action, err
	}
	held := func(a *anypb.Any, action authz.Action) (target, authz.Action, error) {
		t, err := p.targetOf(a)
		return t, action, err
	}
	switch op := op.GetOperation().(type) {
	case *apiv1.Operation_Create:
		return held(op.Create.GetObject(), authz.Create)
	case *apiv1.Operation_Update:
		return p.targetOfUpdate(op.Update)
	case *apiv1.Operation_UpdateStatus:
		return held(op.UpdateStatus.GetObject(), authz.UpdateStatus)
	case *apiv1.Operation_Delete:
		return referred(op.Delete.GetObject(), authz.Delete)
	case *apiv1.Operation_Bind:
		return referred(podReference(op.Bind), authz.Bind)
	case *apiv1.Operation_Patch:
		verb, err := subresourceVerb(authz.Patch, op.Patch.GetSubresource())
		if err != nil {
			return target{}, "", err
		}
		return referred(op.Patch.GetObject(), verb)
	case *apiv1.Operation_Apply:
		return p.targetOfApply(op.Apply)
	}
	return target{}, "", apierr.BadField("operation", "is required: one of create, update, updateStatus, delete, bind, apply, patch")
}

func podReference(op *apiv1.BindOperation) *apiv1.ObjectReference {
	return &apiv1.ObjectReference{Kind: "Pod", Namespace: op.GetNamespace(), Name: op.GetName()}
}

// Preauthorize refuses a caller whose right does not depend on the stored object. The right of a
// node to a pod does: that is checked when the pod has been read.
func (p *Pipeline) Preauthorize(ctx context.Context, caller authz.Caller, ask authz.Attributes) error {
	if _, node := caller.Node(); node && ask.GroupResource() == "pods" {
		return nil
	}
	return p.Authorize(ctx, caller, ask)
}

// preauthorizeObject is Preauthorize for a request that holds an object. It returns the kind of the
// object.
func (p *Pipeline) preauthorizeObject(ctx context.Context, caller authz.Caller, action authz.Action, object *anypb.Any) (*scheme.Kind, error) {
	t, err := p.targetOf(object)
	if err != nil {
		return nil, err
	}
	return t.kind, p.Preauthorize(ctx, caller, t.ask(action))
}

// preauthorizeReference is Preauthorize for a request that names an object. It returns the kind of
// the object.
func (p *Pipeline) preauthorizeReference(
	ctx context.Context, caller authz.Caller, action authz.Action, ref *apiv1.ObjectReference,
) (*scheme.Kind, error) {
	k, key, err := p.ResolveReference(ref)
	if err != nil {
		return nil, err
	}
	return k, p.Preauthorize(ctx, caller, target{kind: k, key: key}.ask(action))
}

// MayMiss reports whether a caller may learn that an object does not exist though it has no right
// to it: an agent asks for pods that it knew, and must see that they are gone.
func MayMiss(caller authz.Caller, a authz.Attributes) bool {
	_, node := caller.Node()
	return node && a.GroupResource() == "pods" && a.Name != "" && slices.Contains([]authz.Action{authz.Get, authz.UpdateStatus, authz.Delete}, a.Action())
}
