package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Claim returns the dependents that the owner controls. It adopts those that match the owner's
// selector and have no controller, and releases those that do not match any more. An owner that is
// being deleted does neither.
//
// A wait of more than 0 means that the informer does not show all writes for the owner yet, earlier
// ones or those of this call. The dependents are nil then, and the reconcile has to end: it is
// repeated when the informer has caught up, after wait at the latest.
func (d *Dependents[O, T]) Claim(ctx context.Context, owner O) (dependents []T, wait time.Duration, err error) {
	settled, err := d.settled(ctx, owner)
	switch {
	case err != nil:
		return nil, 0, err
	case !settled:
		return nil, observePause, nil
	}
	if owner.GetMetadata().GetDeletionTimestamp() == nil {
		selector, err := object.LabelSelector(d.Selector(owner))
		if err != nil {
			return nil, 0, fmt.Errorf("selector: %w", err)
		}
		adopted, err := d.adopt(ctx, owner, selector)
		if err != nil {
			return nil, 0, err
		}
		released, err := d.release(ctx, owner, selector)
		if err != nil {
			return nil, 0, err
		}
		if adopted+released > 0 {
			return nil, observePause, nil
		}
	}
	return ControlledBy(d.Dependents, owner.GetMetadata().GetUid()), 0, nil
}

// adopters returns the owners that could adopt a dependent without a controller.
func (d *Dependents[O, T]) adopters(obj T) []Key {
	m := obj.GetMetadata()
	if kinds.ControllerOf(obj) != nil || m.GetDeletionTimestamp() != nil {
		return nil
	}
	var keys []Key
	for _, owner := range d.Owners.List() {
		if owner.GetMetadata().GetNamespace() != m.GetNamespace() {
			continue
		}
		if s, err := object.LabelSelector(d.Selector(owner)); err == nil && s.Matches(labels.Set(m.GetLabels())) {
			keys = append(keys, client.KeyOf(owner))
		}
	}
	return keys
}

// adopt makes the owner the controller of objects that match and have none. It returns how many.
func (d *Dependents[O, T]) adopt(ctx context.Context, owner O, selector labels.Selector) (adopted int, err error) {
	live := false
	for _, obj := range d.Dependents.ByIndex(byController, orphansOf(owner.GetMetadata().GetNamespace())) {
		m := obj.GetMetadata()
		if m.GetDeletionTimestamp() != nil || !selector.Matches(labels.Set(m.GetLabels())) || !d.Claimable(obj) || !d.Member(owner, obj) {
			continue
		}
		// The informers of owners and dependents need not have reached the same revision. An owner that
		// was deleted and orphaned its dependents must not take them back: they would be collected with
		// it.
		if !live {
			if live, err = d.isLive(ctx, owner); err != nil || !live {
				return 0, err
			}
		}
		owners := append(slices.Clone(m.GetOwnerReferences()), kinds.NewControllerRef(owner))
		ok, err := d.patchOwners(ctx, owner, obj, owners, true)
		if err != nil {
			return adopted, fmt.Errorf("adopt %s %s: %w", d.Dependents.Kind().Name, m.GetName(), err)
		}
		if ok {
			adopted++
		}
	}
	return adopted, nil
}

// release ends the owner's control of objects that do not match any more. It returns how many.
func (d *Dependents[O, T]) release(ctx context.Context, owner O, selector labels.Selector) (released int, err error) {
	for _, obj := range ControlledBy(d.Dependents, owner.GetMetadata().GetUid()) {
		m := obj.GetMetadata()
		if selector.Matches(labels.Set(m.GetLabels())) && d.Member(owner, obj) || !d.Claimable(obj) {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(m.GetOwnerReferences()), func(ref *metav1.OwnerReference) bool {
			return ref.GetUid() == owner.GetMetadata().GetUid()
		})
		ok, err := d.patchOwners(ctx, owner, obj, others, false)
		if err != nil {
			return released, fmt.Errorf("release %s %s: %w", d.Dependents.Kind().Name, m.GetName(), err)
		}
		if ok {
			released++
		}
	}
	return released, nil
}

// isLive asks the API, not the informer, whether the owner exists and is not being deleted.
func (d *Dependents[O, T]) isLive(ctx context.Context, owner O) (bool, error) {
	m := owner.GetMetadata()
	live, err := client.Get[O](ctx, d.Client, m.GetNamespace(), m.GetName())
	if apierr.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("check that %s %s exists: %w", d.Owners.Kind().Name, m.GetName(), err)
	}
	return live.GetMetadata().GetUid() == m.GetUid() && live.GetMetadata().GetDeletionTimestamp() == nil, nil
}

// patchOwners replaces the owner references of an object, provided that it has the uid and the
// resourceVersion that the informer shows, and makes the owner wait for the change. It returns
// false when the object is gone.
func (d *Dependents[O, T]) patchOwners(ctx context.Context, owner O, obj T, refs []*metav1.OwnerReference, adopts bool) (bool, error) {
	m := obj.GetMetadata()
	patch, err := OwnersPatch(m, refs, d.finalizersOf(m, adopts))
	if err != nil {
		return false, err
	}
	patched, err := client.Patch[T](ctx, d.Client, m.GetNamespace(), m.GetName(), patch)
	if apierr.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	d.expect(owner, patched.GetMetadata().GetResourceVersion(), adopts, patched)
	return true, nil
}

// finalizersOf are the finalizers of a dependent that is adopted or released.
func (d *Dependents[O, T]) finalizersOf(m *metav1.ObjectMeta, adopts bool) []string {
	if d.Finalizer == "" {
		return m.GetFinalizers()
	}
	others := slices.DeleteFunc(slices.Clone(m.GetFinalizers()), func(f string) bool { return f == d.Finalizer })
	if adopts {
		others = append(others, d.Finalizer)
	}
	return others
}

// OwnersPatch is a merge patch that replaces owner references and finalizers. The server refuses it
// when uid or resourceVersion differ.
func OwnersPatch(m *metav1.ObjectMeta, refs []*metav1.OwnerReference, finalizers []string) ([]byte, error) {
	changed := &metav1.ObjectMeta{
		Uid: m.GetUid(), ResourceVersion: m.GetResourceVersion(), OwnerReferences: refs, Finalizers: finalizers,
	}
	v, err := codec.Value(changed)
	if err != nil {
		return nil, fmt.Errorf("encode owner references: %w", err)
	}
	meta, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("encode owner references: got a %T", v)
	}
	if len(refs) == 0 {
		meta["ownerReferences"] = nil
	}
	if len(finalizers) == 0 {
		meta["finalizers"] = nil
	}
	return json.Marshal(map[string]any{"metadata": meta})
}
