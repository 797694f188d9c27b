package apiserver

import (
	"context"
	"errors"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// checkNamespace refuses a new object in a namespace that does not exist or is being deleted. The namespace may begin to
// go between the check and the commit; its deletion ends only when the collector finds nothing left in it.
func (s *Service) checkNamespace(ctx context.Context, get reader, k *kind.Kind, o kind.Object) error {
	namespace := o.GetMetadata().GetNamespace()
	if !k.Namespaced || namespace == "" {
		return nil // validation names the mistake
	}
	namespaces, _ := kind.ByGroupKind("", "Namespace")
	stored, err := get(ctx, keyOf(namespaces, "", namespace))
	if errors.Is(err, storage.ErrNotFound) {
		return apierr.NotFound(namespaces, namespace)
	}
	if err != nil {
		return storageError(err)
	}
	if stored.Meta().GetDeletionTimestamp() != nil {
		return apierr.NamespaceTerminating(k, o.GetMetadata().GetName(), namespace)
	}
	return nil
}

// admit completes an object with what depends on other objects, and returns the writes that must go with it. old is nil
// for a new object.
func (s *Service) admit(ctx context.Context, get reader, o, old kind.Object) ([]storage.Write, error) {
	svc, ok := o.(*corev1.Service)
	if !ok {
		return nil, nil
	}
	before, _ := old.(*corev1.Service)
	return s.allocations.allocate(ctx, get, svc, before)
}
