package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// storedForWrite reads the object that a request would change and checks the caller's right to it.
func (p *plan) storedForWrite(ctx context.Context, t target) (*storage.Object, error) {
	right := t.attributes()
	stored, err := p.get(ctx, t.key)
	missing := errors.Is(err, storage.ErrNotFound)
	if stored != nil {
		right.NodeName = registry.NodeOf(t.kind, stored)
	}
	if denied := p.Authorize(ctx, p.caller, right); denied != nil && !(missing && MayMiss(p.caller, right)) {
		return nil, denied
	}
	if missing {
		return nil, apierr.NotFound(t.kind, t.key.Name)
	}
	return stored, storage.APIError(err)
}

// currentForWrite is storedForWrite with the object decoded. It checks the version and uid in want,
// if they are set.
func (p *plan) currentForWrite(ctx context.Context, t target, want *metav1.ObjectMeta) (*storage.Object, scheme.Object, error) {
	stored, err := p.storedForWrite(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	old, err := decodeWanted(t.kind, stored, want)
	if err != nil {
		return nil, nil, err
	}
	return stored, old, nil
}

// decodeWanted decodes a stored object, which must be of the version and uid that a request names,
// if it does.
func decodeWanted(k *scheme.Kind, stored *storage.Object, want *metav1.ObjectMeta) (scheme.Object, error) {
	old, err := registry.Decode(k, stored)
	if err != nil {
		return nil, err
	}
	if v := want.GetResourceVersion(); v != "" && v != old.GetMetadata().GetResourceVersion() {
		if _, err := ParseRevision("metadata.resourceVersion", v); err != nil {
			return nil, err
		}
		return nil, apierr.Conflict(k, stored.Key.Name, fmt.Sprintf("it is at resourceVersion %s, not %s; read it again and redo the change",
			old.GetMetadata().GetResourceVersion(), v))
	}
	if uid := want.GetUid(); uid != "" && uid != old.GetMetadata().GetUid() {
		return nil, apierr.Conflict(k, stored.Key.Name, fmt.Sprintf("its uid is %s, not %s: it was deleted and created again",
			old.GetMetadata().GetUid(), uid))
	}
	return old, nil
}
