package collector

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// orphansInterval is the interval of searches for objects without a namespace.
const orphansInterval = time.Minute

// orphans deletes objects whose namespace does not exist. A namespace is normally removed when it
// is empty. Objects remain if a user removed its finalizer, or if they come from a snapshot of an
// older version.
type orphans struct {
	client     *client.Client
	namespaces *client.Informer[*corev1.Namespace]
	graph      *graph
	log        *zap.Logger
}

func (o *orphans) run(ctx context.Context) error {
	tick := time.NewTicker(orphansInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := o.sweep(ctx); err != nil {
			return err
		}
	}
}

// sweep deletes such objects once. It fails only when the election is lost.
func (o *orphans) sweep(ctx context.Context) error {
	// All objects are listed before the first namespace is looked up. An object is created only in an
	// existing namespace: if its namespace is missing after the object was listed, the namespace was
	// removed, even if one with this name is created again.
	suspects := map[string][]dependent{}
	for k, m := range o.graph.all() {
		if !k.Namespaced {
			continue
		}
		for _, obj := range m.informer.List() {
			meta := obj.GetMetadata()
			if _, ok := o.namespaces.Get("", meta.GetNamespace()); !ok && meta.GetDeletionTimestamp() == nil {
				suspects[meta.GetNamespace()] = append(suspects[meta.GetNamespace()], dependent{k, obj})
			}
		}
	}
	for namespace, objects := range suspects {
		if slices.Contains(core.PermanentNamespaces, namespace) {
			continue // about to be made: the collector's own election is in one of them
		}
		// The informer may be behind.
		_, err := client.Get[*corev1.Namespace](ctx, o.client, "", namespace)
		switch {
		case apierr.IsNotFound(err):
		case err != nil && ctx.Err() == nil:
			o.log.Warn("Namespace of objects not looked for", zap.String(metrics.KeyObject, "Namespace "+namespace), zap.Error(err))
			continue
		default:
			continue
		}
		for _, d := range objects {
			if err := o.delete(ctx, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *orphans) delete(ctx context.Context, d dependent) error {
	meta := d.object.GetMetadata()
	what := zap.String(metrics.KeyObject, d.kind.GroupKind()+" "+client.KeyOf(d.object).String())
	_, err := client.DeleteKind(ctx, o.client, d.kind, meta.GetNamespace(), meta.GetName(), client.IfUID(meta.GetUid()))
	switch {
	case err == nil:
		o.log.Info("Deleted an object without a namespace", what)
	case apierr.IsElectionLost(err):
		return err
	case !apierr.IsNotFound(err) && !apierr.IsConflict(err) && ctx.Err() == nil:
		o.log.Warn("Object without a namespace not deleted", what, zap.Error(err))
	}
	return nil
}
