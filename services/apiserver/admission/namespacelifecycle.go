package admission

import (
	"context"
	"errors"
	"slices"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// namespaceLifecycle refuses new objects in a namespace that does not exist or is terminating, and
// the deletion of the namespaces that every cluster has.
type namespaceLifecycle struct{}

// Name is Kubernetes' name of it.
func (namespaceLifecycle) Name() string { return "NamespaceLifecycle" }

// Mutate adds, for a new object, the condition that its namespace stays as it was read: otherwise
// the object could be created after the collector has found nothing left in the namespace.
func (namespaceLifecycle) Mutate(ctx context.Context, a *Attributes) error {
	switch {
	case a.Operation == Delete && a.Kind.Name == "Namespace" && slices.Contains(core.PermanentNamespaces, a.Name):
		return apierr.Forbidden(a.Kind, a.Name, "this namespace may not be deleted")
	case a.Operation != Create || !a.Kind.Namespaced || a.Namespace == "":
		return nil // validation reports a missing namespace
	}
	namespaces := kinds.Of(new(corev1.Namespace))
	stored, err := a.Get(ctx, registry.KeyOf(namespaces, "", a.Namespace))
	if errors.Is(err, storage.ErrNotFound) {
		return apierr.NotFound(namespaces, a.Namespace)
	}
	if err != nil {
		return storage.APIError(err)
	}
	if stored.Meta().GetDeletionTimestamp() != nil {
		return apierr.NamespaceTerminating(a.Kind, a.Name, a.Namespace)
	}
	a.Conditions = append(a.Conditions, storage.Condition{Key: stored.Key, Revision: stored.Revision})
	return nil
}
