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

// orphansInterval is how often it is looked for objects without a namespace.
const orphansInterval = time.Minute

// orphans deletes objects whose namespace does not exist. A namespace normally goes when nothing is left in it; where
// somebody took its finalizer away, or a snapshot of an older version had such objects, they would stay for ever.
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

// sweep deletes what it finds. It fails only when the election is lost.
func (o *orphans) sweep(ctx context.Context) error {
	// All are seen before the first namespace is looked for. An object is made only in a namespace that exists: one whose
	// namespace is absent after the object was seen has outlived it, even if there is one of its name again in a moment.
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
		// The mirror may be behind.
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
