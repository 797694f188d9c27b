// Package admission decides on writes by more than the object itself: whether its namespace is
// live, which account it runs as, what a node may say. Plug-ins run in one order, chain.go, on
// every write: create, update, patch, apply, delete, those of status and other subresources,
// bindings, and each operation of a transaction.
package admission

import (
	"context"
	"errors"

	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Operation is what a write does to an object.
type Operation string

// The operations, named as in Kubernetes' AdmissionReview. Patches and applies are updates or
// creates.
const (
	Create Operation = "CREATE"
	Update Operation = "UPDATE"
	Delete Operation = "DELETE"
)

// Attributes describe one write to the plug-ins.
type Attributes struct {
	// Operation is what is done.
	Operation Operation
	// Subresource is the part of the object that is written, such as "status" or "binding", empty for
	// the object itself.
	Subresource string
	// Caller makes the write.
	Caller authz.Caller
	// Kind, Namespace and Name are those of the object.
	Kind            *scheme.Kind
	Namespace, Name string
	// Object is the object as it will be, nil for a delete.
	Object scheme.Object
	// Old is the stored object, nil for a create.
	Old scheme.Object
	// DryRun says that nothing will be stored.
	DryRun bool
	// Get reads other objects. What a decision rests on belongs in Conditions.
	Get storage.Reader
	// Conditions hold at the commit, or the write is planned again. Plug-ins append to them.
	Conditions []storage.Condition
}

// read returns another object, as a write sees it; false when it does not exist.
func read[T scheme.Object](ctx context.Context, a *Attributes, namespace, name string) (object T, found bool, err error) {
	k := kinds.Of(object)
	stored, err := a.Get(ctx, registry.KeyOf(k, namespace, name))
	if errors.Is(err, storage.ErrNotFound) {
		return object, false, nil
	}
	if err != nil {
		return object, false, storage.APIError(err)
	}
	o, err := registry.Decode(k, stored)
	if err != nil {
		return object, false, err
	}
	return o.(T), true, nil
}
