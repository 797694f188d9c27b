package collector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// syncInterval is how often a deletion that waits for a kind to be known is looked at again.
const syncInterval = time.Second

// garbage decides about one object at a time.
type garbage struct {
	client *client.Client
	graph  *graph
	events *events.Recorder
	absent *absentees
}

func (g *garbage) reconcile(ctx context.Context, k *scheme.Kind, key controller.Key) (controller.Result, error) {
	obj, ok := g.graph.get(k, key)
	if !ok {
		return controller.Result{}, nil
	}
	m := obj.GetMetadata()
	var err error
	switch {
	case m.GetDeletionTimestamp() == nil:
		if len(m.GetOwnerReferences()) > 0 {
			err = g.judge(ctx, k, obj)
		}
	case !g.graph.synced():
		// Dependents may be of a kind that is not known yet.
		return controller.Result{RequeueAfter: syncInterval}, nil
	case slices.Contains(m.GetFinalizers(), object.FinalizerOrphan):
		err = g.orphan(ctx, k, obj)
	case slices.Contains(m.GetFinalizers(), object.FinalizerForeground):
		err = g.foreground(ctx, k, obj)
	}
	return controller.Result{}, err
}

// owners are an object's owner references by what became of the owners.
type owners struct {
	solid   int                      // exist, and do not wait for this object
	waiting []*metav1.OwnerReference // are being deleted and wait for their dependents
	absent  []*metav1.OwnerReference // do not exist
}

// judge deletes an object without a remaining owner, or removes its references to missing owners.
func (g *garbage) judge(ctx context.Context, k *scheme.Kind, seen scheme.Object) error {
	// The informers show that there is nothing to do, which is nearly always so.
	o, err := g.classify(ctx, seen)
	if err != nil || len(o.waiting)+len(o.absent) == 0 {
		return err
	}
	key := client.KeyOf(seen)
	obj, err := client.GetKind(ctx, g.client, k, key.Namespace, key.Name)
	if apierr.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", k, key, err)
	}
	m := obj.GetMetadata()
	if m.GetUid() != seen.GetMetadata().GetUid() || m.GetDeletionTimestamp() != nil {
		return nil
	}
	if o, err = g.classify(ctx, obj); err != nil || len(o.waiting)+len(o.absent) == 0 {
		return err
	}
	if o.solid > 0 {
		return g.dropReferences(ctx, k, obj, append(o.waiting, o.absent...))
	}
	policy := client.Background
	switch {
	case slices.Contains(m.GetFinalizers(), object.FinalizerOrphan):
		policy = client.Orphan
	case slices.Contains(m.GetFinalizers(), object.FinalizerForeground):
		policy = client.Foreground
	case len(o.waiting) > 0 && len(g.graph.dependents(m.GetUid())) > 0:
		// The waiting owner is deleted after all objects below it.
		policy = client.Foreground
	}
	_, err = client.DeleteKind(ctx, g.client, k, key.Namespace, key.Name,
		policy, client.IfUID(m.GetUid()), client.IfResourceVersion(m.GetResourceVersion()))
	if err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("delete %s %s, whose owners are gone: %w", k, key, err)
	}
	return nil
}

// classify determines the state of an object's owners. An owner that the informers lack is read
// from the server.
func (g *garbage) classify(ctx context.Context, obj scheme.Object) (owners, error) {
	var o owners
	m := obj.GetMetadata()
	for _, ref := range m.GetOwnerReferences() {
		k, key, err := resolve(g.graph.kinds, ref, m.GetNamespace())
		if err != nil {
			// Whether such an owner exists cannot be verified: the object stays.
			g.events.Event(obj, events.Warning, "OwnerRefInvalid", "%v", err)
			o.solid++
			continue
		}
		owner, ok := g.graph.get(k, key)
		if !ok || owner.GetMetadata().GetUid() != ref.GetUid() {
			if g.absent.has(ref.GetUid()) {
				o.absent = append(o.absent, ref)
				continue
			}
			owner, err = client.GetKind(ctx, g.client, k, key.Namespace, key.Name)
			if err != nil && !apierr.IsNotFound(err) {
				return owners{}, fmt.Errorf("look for owner %s %s: %w", k, key, err)
			}
			if err != nil || owner.GetMetadata().GetUid() != ref.GetUid() {
				g.absent.add(ref.GetUid())
				o.absent = append(o.absent, ref)
				continue
			}
		}
		if waits(owner) {
			o.waiting = append(o.waiting, ref)
		} else {
			o.solid++
		}
	}
	return o, nil
}

// dropReferences removes owner references from an object that was read from the server.
func (g *garbage) dropReferences(ctx context.Context, k *scheme.Kind, obj scheme.Object, gone []*metav1.OwnerReference) error {
	m := obj.GetMetadata()
	m.OwnerReferences = slices.DeleteFunc(m.OwnerReferences, func(r *metav1.OwnerReference) bool {
		return slices.ContainsFunc(gone, func(x *metav1.OwnerReference) bool { return x.GetUid() == r.GetUid() })
	})
	if _, err := client.Update(ctx, g.client, obj); err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("drop the owners of %s %s that are gone: %w", k, client.KeyOf(obj), err)
	}
	return nil
}

// foreground deletes the dependents of an object, and removes the finalizer of the object when no
// dependent blocks it.
func (g *garbage) foreground(ctx context.Context, k *scheme.Kind, obj scheme.Object) error {
	uid := obj.GetMetadata().GetUid()
	blocked := false
	for _, d := range g.graph.dependents(uid) {
		// Each is reconciled by itself, since it may have other owners. The removal of those that are
		// being deleted enqueues this object again.
		if d.object.GetMetadata().GetDeletionTimestamp() == nil {
			g.graph.enqueue(d.kind, client.KeyOf(d.object))
		}
		blocked = blocked || blocks(d.object, uid)
	}
	if blocked && !g.graph.cyclic(obj) {
		return nil
	}
	return g.dropFinalizer(ctx, k, obj, object.FinalizerForeground)
}

// orphan removes the references to an object from its dependents, and then its finalizer.
func (g *garbage) orphan(ctx context.Context, k *scheme.Kind, obj scheme.Object) error {
	uid := obj.GetMetadata().GetUid()
	var errs []error
	for _, d := range g.graph.dependents(uid) {
		key := client.KeyOf(d.object)
		live, err := client.GetKind(ctx, g.client, d.kind, key.Namespace, key.Name)
		if err == nil && live.GetMetadata().GetUid() == d.object.GetMetadata().GetUid() {
			err = g.dropReferences(ctx, d.kind, live, []*metav1.OwnerReference{{Uid: uid}})
		}
		if err != nil && !apierr.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("orphan %s %s: %w", d.kind, key, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return g.dropFinalizer(ctx, k, obj, object.FinalizerOrphan)
}

// dropFinalizer removes a finalizer from the object of this uid, if it still exists.
func (g *garbage) dropFinalizer(ctx context.Context, k *scheme.Kind, seen scheme.Object, finalizer string) error {
	key := client.KeyOf(seen)
	obj, err := client.GetKind(ctx, g.client, k, key.Namespace, key.Name)
	if err == nil {
		m := obj.GetMetadata()
		if m.GetUid() != seen.GetMetadata().GetUid() || !slices.Contains(m.GetFinalizers(), finalizer) {
			return nil
		}
		m.Finalizers = slices.DeleteFunc(m.Finalizers, func(f string) bool { return f == finalizer })
		_, err = client.Update(ctx, g.client, obj)
	}
	if err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("take finalizer %s off %s %s: %w", finalizer, k, key, err)
	}
	return nil
}

// absentees caches uids of owners that do not exist: a uid is never used again, so that one read
// serves all dependents.
type absentees struct {
	mu   sync.Mutex
	uids map[string]struct{}
}

// maxAbsentees bounds the cache; beyond it, the cache is emptied.
const maxAbsentees = 4096

func newAbsentees() *absentees { return &absentees{uids: map[string]struct{}{}} }

func (a *absentees) has(uid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.uids[uid]
	return ok
}

func (a *absentees) add(uid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.uids) >= maxAbsentees {
		clear(a.uids)
	}
	a.uids[uid] = struct{}{}
}
