// Package history keeps the pod templates that an object had as ControllerRevisions, to which a
// rollback can return. It does what Kubernetes' pkg/controller/history does, for DaemonSets and
// StatefulSets.
//
// revision.go has the pure functions: what a revision holds, names, equality, order, and which
// revisions a history limit leaves over. This file writes revisions.
package history

import (
	"context"
	"fmt"
	"maps"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Config says whose revisions they are.
type Config[O scheme.Object] struct {
	// Client writes the revisions.
	Client *client.Client
	// Owners mirrors the owners, Revisions all revisions with the index of controller.ByController.
	Owners    *client.Informer[O]
	Revisions *client.Informer[*appsv1.ControllerRevision]
	// Selector returns the selector of an owner's revisions, which is that of its pods.
	Selector func(O) *metav1.LabelSelector
	// Template returns the pod template of an owner.
	Template func(O) *corev1.PodTemplateSpec
	// HashLabel is the label of revisions that has the hash in their name.
	HashLabel string
}

// History is the revisions of objects of kind O. Claim returns those of one owner.
type History[O scheme.Object] struct {
	*controller.Dependents[O, *appsv1.ControllerRevision]
	template  func(O) *corev1.PodTemplateSpec
	hashLabel string
}

// New returns the revisions of the configured owners.
func New[O scheme.Object](cfg Config[O]) *History[O] {
	return &History[O]{
		Dependents: controller.NewDependents(controller.DependentsConfig[O, *appsv1.ControllerRevision]{
			Client: cfg.Client, Owners: cfg.Owners, Dependents: cfg.Revisions, Selector: cfg.Selector,
		}),
		template: cfg.Template, hashLabel: cfg.HashLabel,
	}
}

// Record returns the revision of the owner's template, which has the highest number of the owner's
// revisions. It creates the revision, or renumbers the one that an earlier state of the owner left.
//
// collisions is how often a name was taken already, from the owner's status. The caller stores the
// returned count there.
func (h *History[O]) Record(
	ctx context.Context, owner O, revisions []*appsv1.ControllerRevision, collisions int32,
) (*appsv1.ControllerRevision, int32, error) {
	data, err := Data(h.template(owner))
	if err != nil {
		return nil, collisions, err
	}
	equal := FindEqual(revisions, data)
	if len(equal) == 0 {
		return h.create(ctx, owner, data, Next(revisions), collisions)
	}
	current := equal[len(equal)-1]
	if next := Next(without(revisions, current)); current.GetRevision() < next {
		renumbered := client.Clone(current)
		renumbered.Revision = next
		if current, err = client.Update(ctx, h.Client, renumbered); err != nil {
			return nil, collisions, fmt.Errorf("renumber revision %s: %w", renumbered.GetMetadata().GetName(), err)
		}
	}
	return current, collisions, nil
}

// create creates the revision of the owner's template under the first name that is free.
func (h *History[O]) create(
	ctx context.Context, owner O, data []byte, number int64, collisions int32,
) (*appsv1.ControllerRevision, int32, error) {
	for {
		wanted := h.revision(owner, data, number, collisions)
		name := wanted.GetMetadata().GetName()
		created, err := h.CreateNamed(ctx, owner, wanted)
		if err == nil {
			return created, collisions, nil
		}
		if !apierr.IsAlreadyExists(err) {
			return nil, collisions, fmt.Errorf("create revision %s: %w", name, err)
		}
		there, err := client.Get[*appsv1.ControllerRevision](ctx, h.Client, wanted.GetMetadata().GetNamespace(), name)
		if err != nil {
			return nil, collisions, fmt.Errorf("read revision %s, which exists already: %w", name, err)
		}
		// The informer need not show the revision yet.
		if kinds.IsControlledBy(there, owner) && same(there.GetData().GetRaw(), data) {
			return there, collisions, nil
		}
		collisions++
	}
}

// revision is a revision to create.
func (h *History[O]) revision(owner O, data []byte, number int64, collisions int32) *appsv1.ControllerRevision {
	hash, m := Hash(data, collisions), owner.GetMetadata()
	labels := map[string]string{}
	maps.Copy(labels, h.template(owner).GetMetadata().GetLabels())
	labels[h.hashLabel] = hash
	return &appsv1.ControllerRevision{
		Metadata: &metav1.ObjectMeta{
			Name: Name(m.GetName(), hash), Namespace: m.GetNamespace(), Labels: labels, Annotations: maps.Clone(m.GetAnnotations()),
		},
		Data: &metav1.RawExtension{Raw: data}, Revision: number,
	}
}

// HashOf is the hash by which pods name a revision. That of a revision without the label, which no
// controller made, is its name.
func (h *History[O]) HashOf(r *appsv1.ControllerRevision) string {
	if hash := r.GetMetadata().GetLabels()[h.hashLabel]; hash != "" {
		return hash
	}
	return r.GetMetadata().GetName()
}

// Trim deletes the surplus of the owner's old revisions.
func (h *History[O]) Trim(ctx context.Context, owner O, surplus []*appsv1.ControllerRevision) error {
	if _, err := h.Delete(ctx, owner, surplus); err != nil {
		return fmt.Errorf("delete old revisions: %w", err)
	}
	return nil
}
