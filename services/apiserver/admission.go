package apiserver

import (
	"context"
	"errors"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// checkNamespace refuses a new object in a namespace that does not exist or is being deleted. It returns the condition that
// the namespace is still as it was seen: when it has begun to go before the commit, or was changed in any other way, the
// plan is made again. Without it an object could come after the collector has found nothing left.
func (s *Service) checkNamespace(ctx context.Context, get reader, k *kind.Kind, o kind.Object) ([]storage.Condition, error) {
	namespace := o.GetMetadata().GetNamespace()
	if !k.Namespaced || namespace == "" {
		return nil, nil // validation names the mistake
	}
	namespaces, _ := kind.ByGroupKind("", "Namespace")
	stored, err := get(ctx, keyOf(namespaces, "", namespace))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, apierr.NotFound(namespaces, namespace)
	}
	if err != nil {
		return nil, storageError(err)
	}
	if stored.Meta().GetDeletionTimestamp() != nil {
		return nil, apierr.NamespaceTerminating(k, o.GetMetadata().GetName(), namespace)
	}
	return []storage.Condition{{Key: stored.Key, Revision: stored.Revision}}, nil
}

// admit completes an object with what depends on other objects, and returns the writes that must go with it. old is nil
// for a new object.
func (s *Service) admit(ctx context.Context, get reader, o, old kind.Object) ([]storage.Write, error) {
	switch o := o.(type) {
	case *corev1.Service:
		before, _ := old.(*corev1.Service)
		addresses, err := s.allocations.allocate(ctx, get, o, before)
		if err != nil {
			return nil, err
		}
		ports, err := s.nodePorts.allocate(ctx, get, o, before)
		return append(addresses, ports...), err
	case *corev1.Pod:
		if old == nil {
			return nil, restrictMirror(ctx, get, o)
		}
	case *corev1.Node:
		before, _ := old.(*corev1.Node)
		return nil, s.restrictNode(ctx, o, before)
	case *corev1.Event:
		before, _ := old.(*corev1.Event)
		return nil, restrictEvent(ctx, get, o, before)
	case *gatewayv1.GatewayAccess:
		return nil, s.checkLockout(ctx, o)
	}
	return nil, nil
}
