// Package registry has the differences between kinds when their objects are written, beyond the
// rules of kinds: what a write allocates along with the object, how a deletion proceeds, and what
// happens after a removal. Kinds without their own strategy have the generic one.
package registry

import (
	"context"
	"net/netip"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/flowcontrol"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Strategy is what the pipeline asks of a kind. Methods may be called several times for one write,
// since a plan is made again when an object changed between reading and committing.
type Strategy interface {
	// Allocate completes o with its allocations, such as addresses, and returns the writes for the
	// same transaction. old is the stored object that o replaces, nil for a new one.
	Allocate(ctx context.Context, get storage.Reader, o, old scheme.Object) ([]storage.Write, error)
	// Release returns the writes that release the allocations of o, which is being removed.
	Release(ctx context.Context, get storage.Reader, o scheme.Object) ([]storage.Write, error)
	// GracePeriod returns how many seconds o may continue to run after a delete; asked is the grace
	// period of the request, nil for none.
	GracePeriod(o scheme.Object, asked *int64) int64
	// MarkDeleted changes o, beside its metadata, when a delete does not remove it at once.
	MarkDeleted(o scheme.Object)
	// KeepStatusMetadata is called with the object o of a write of the status. It restores the
	// metadata of old that such a write does not change. Labels, annotations, finalizers and owner
	// references are as the client sent them.
	KeepStatusMetadata(o, old scheme.Object)
	// Removed is called when the removal of o has been committed.
	Removed(o scheme.Object)
}

// Config is what strategies need to know of the cluster.
type Config struct {
	// Store holds the objects.
	Store *storage.Store
	// ServiceCIDRs are the ranges of cluster IPs, of different families; services get addresses of the
	// first by default.
	ServiceCIDRs []netip.Prefix
	// ClusterDNS is the address in the first range that is given to no service.
	ClusterDNS netip.Addr
	// AccountRemoved is called when the default service account of a namespace was removed.
	AccountRemoved func()
}

// Registry has the strategy of every kind.
type Registry struct {
	own map[string]Strategy // by group kind
}

// New returns a registry.
func New(cfg Config) *Registry {
	r := &Registry{own: map[string]Strategy{
		"Pod":             podStrategy{Generic{kinds.Of(new(corev1.Pod))}},
		"Deployment.apps": deploymentStrategy{Generic{kinds.Of(new(appsv1.Deployment))}},
		"Service":         newServiceStrategy(cfg),
		"Namespace":       namespaceStrategy{Generic{kinds.Of(new(corev1.Namespace))}},
		"ServiceAccount":  serviceAccountStrategy{Generic{kinds.Of(new(corev1.ServiceAccount))}, cfg.AccountRemoved},
	}}
	for _, k := range flowcontrol.Kinds {
		r.own[k.GroupKind()] = flowControlStrategy{Generic{k}}
	}
	return r
}

// For returns the strategy of a kind.
func (r *Registry) For(k *scheme.Kind) Strategy {
	if s, ok := r.own[k.GroupKind()]; ok {
		return s
	}
	return Generic{k}
}

// Generic is the strategy of kinds that need nothing special: nothing is allocated, and the kind's
// grace period holds.
type Generic struct{ Kind *scheme.Kind }

// Allocate allocates nothing.
func (Generic) Allocate(context.Context, storage.Reader, scheme.Object, scheme.Object) ([]storage.Write, error) {
	return nil, nil
}

// Release returns nothing.
func (Generic) Release(context.Context, storage.Reader, scheme.Object) ([]storage.Write, error) {
	return nil, nil
}

// GracePeriod is the kind's own, which a request may change but not introduce.
func (g Generic) GracePeriod(o scheme.Object, asked *int64) int64 {
	if g.Kind.GracePeriod == nil {
		return 0
	}
	grace := g.Kind.GracePeriod(o)
	if asked != nil && grace > 0 {
		return *asked
	}
	return grace
}

// MarkDeleted changes nothing.
func (Generic) MarkDeleted(scheme.Object) {}

// KeepStatusMetadata restores nothing: in most kinds a status write changes metadata, as in
// Kubernetes.
func (Generic) KeepStatusMetadata(scheme.Object, scheme.Object) {}

// Removed does nothing.
func (Generic) Removed(scheme.Object) {}
