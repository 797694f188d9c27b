package registry

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// namespaceStrategy creates a namespace's default service account in the transaction that creates
// the namespace, so that no pod finds one without the other.
type namespaceStrategy struct{ Generic }

// Allocate creates the default account of a new namespace, unless a former namespace of the name
// left one.
func (namespaceStrategy) Allocate(ctx context.Context, get storage.Reader, o, old scheme.Object) ([]storage.Write, error) {
	namespace := o.GetMetadata().GetName()
	if old != nil || namespace == "" {
		return nil, nil
	}
	k := kinds.Of(new(corev1.ServiceAccount))
	key := KeyOf(k, namespace, core.DefaultServiceAccount)
	if _, err := get(ctx, key); err == nil {
		return nil, nil
	} else if !errors.Is(err, storage.ErrNotFound) {
		return nil, storage.APIError(err)
	}
	account := &corev1.ServiceAccount{Metadata: &metav1.ObjectMeta{
		Name: core.DefaultServiceAccount, Namespace: namespace,
		Uid: uuid.NewString(), CreationTimestamp: timestamppb.New(time.Now().Truncate(time.Second)),
	}}
	b, err := Encode(k, account)
	return []storage.Write{{Key: key, Bytes: b}}, err
}

// MarkDeleted shows that the namespace is terminating.
func (namespaceStrategy) MarkDeleted(o scheme.Object) {
	ns := o.(*corev1.Namespace)
	if ns.Status == nil {
		ns.Status = &corev1.NamespaceStatus{}
	}
	ns.Status.Phase = "Terminating"
}
