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

// target is the object of a write and the action on it. It is determined once per request; all
// plans of the request use it.
type target struct {
	action authz.Action
	// kind is the version of the kind that the request names.
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

func (t target) attributes() authz.Attributes {
	return Attributes(t.kind, t.action, t.key.Namespace, t.key.Name)
}

// as returns the same object with another action.
func (t target) as(action authz.Action) target {
	t.action = action
	return t
}

// targetOfReference returns the target of a request that names an object.
func (p *Pipeline) targetOfReference(action authz.Action, ref *apiv1.ObjectReference) (target, error) {
	k, key, err := p.ResolveReference(ref)
	return target{action: action, kind: k, key: key}, err
}

// targetOf returns the target of a request that holds an object, without decoding the object.
func (p *Pipeline) targetOf(action authz.Action, a *anypb.Any) (target, error) {
	if a == nil {
		return target{}, apierr.BadField("object", "is required")
	}
	k, ok := p.Scheme.ByTypeURL(a.GetTypeUrl())
	if !ok {
		return target{}, apierr.BadField("object.typeUrl", "no kind has the type %q; xebec api-resources lists the kinds",
			Shortened(a.GetTypeUrl()))
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
	t := target{action: action, kind: k, key: registry.KeyOf(k, texts[0], texts[1])}
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
		return apierr.BadField("fieldManager", "must have printable characters only, has another at byte %d: %q", i, name)
	}
	return nil
}

// targetOfOperation returns the target of an operation of a transaction.
func (p *Pipeline) targetOfOperation(op *apiv1.Operation) (target, error) {
	switch op := op.GetOperation().(type) {
	case *apiv1.Operation_Create:
		return p.targetOf(authz.Create, op.Create.GetObject())
	case *apiv1.Operation_Update:
		return p.targetOfUpdate(op.Update)
	case *apiv1.Operation_UpdateStatus:
		return p.targetOf(authz.UpdateStatus, op.UpdateStatus.GetObject())
	case *apiv1.Operation_Delete:
		return p.targetOfReference(authz.Delete, op.Delete.GetObject())
	case *apiv1.Operation_Bind:
		pod := &apiv1.ObjectReference{Kind: "Pod", Namespace: op.Bind.GetNamespace(), Name: op.Bind.GetName()}
		return p.targetOfReference(authz.Bind, pod)
	case *apiv1.Operation_Patch:
		return p.targetOfPatch(op.Patch)
	case *apiv1.Operation_Apply:
		return p.targetOfApply(op.Apply)
	}
	return target{}, apierr.BadField("operation", "is required: one of create, update, updateStatus, delete, bind, apply, patch")
}

// on returns the target of the same action on a subresource of the object, empty for none. It
// returns an error for subresources by which objects of the kind are not written.
func (t target) on(subresource string) (target, error) {
	switch subresource {
	case "":
		return t, nil
	case subresourceStatus:
		return t.as(authz.UpdateStatus), nil
	}
	action, err := ViewAction(t.kind, t.action, subresource)
	return t.as(action), err
}

// ViewAction returns the action on a subresource that is a view of an object: its scale, or a part
// that is read and written in the form of the whole object.
func ViewAction(k *scheme.Kind, action authz.Action, subresource string) (authz.Action, error) {
	if subresource == subresourceScale || k.Stored().Part(subresource) != nil {
		return authz.Action(string(action) + "/" + subresource), nil
	}
	accepted := []string{"empty"}
	for _, s := range k.Subresources {
		if s.Name == subresourceStatus || s.Name == subresourceScale || s.Part != nil {
			accepted = append(accepted, s.Name)
		}
	}
	return "", apierr.BadField("subresource", "%q is not accepted for %s: want one of %s",
		Shortened(subresource), k.Resource(), strings.Join(accepted, ", "))
}

// Preauthorize refuses a caller whose right does not depend on the stored object. The right of a
// node to a pod does: that is checked when the pod has been read.
func (p *Pipeline) Preauthorize(ctx context.Context, caller authz.Caller, ask authz.Attributes) error {
	if _, node := caller.Node(); node && ask.GroupResource() == "pods" {
		return nil
	}
	return p.Authorize(ctx, caller, ask)
}

// MayMiss reports whether a caller may learn that an object does not exist though it has no right
// to it: an agent asks for pods that it knew, and must see that they are gone.
func MayMiss(caller authz.Caller, a authz.Attributes) bool {
	_, node := caller.Node()
	return node && a.GroupResource() == "pods" && a.Name != "" &&
		slices.Contains([]authz.Action{authz.Get, authz.UpdateStatus, authz.Delete}, a.Action())
}
