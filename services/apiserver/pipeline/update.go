package pipeline

import (
	"bytes"
	"context"
	"reflect"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Update replaces an object but for its status.
func (p *Pipeline) Update(ctx context.Context, caller authz.Caller, req *apiv1.UpdateRequest) (*apiv1.UpdateResponse, error) {
	t, err := p.targetOfUpdate(req)
	if err == nil {
		err = p.Preauthorize(ctx, caller, t.attributes())
	}
	if err != nil {
		return nil, err
	}
	c, err := p.writeOne(ctx, caller, req, func(ctx context.Context, p *plan) (*change, error) {
		return p.update(ctx, t, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := c.encode(t.kind)
	return &apiv1.UpdateResponse{Object: out, Warnings: c.warnings}, err
}

// targetOfUpdate returns the target of an update. An update of the subresource scale holds a Scale
// and names the object.
func (p *Pipeline) targetOfUpdate(req *apiv1.UpdateRequest) (t target, err error) {
	scale := req.GetSubresource() == subresourceScale
	switch {
	case scale && req.GetReference() == nil:
		err = apierr.BadField("reference", "is required with the subresource scale")
	case scale:
		t, err = p.targetOfReference(authz.Update, req.GetReference())
	case req.GetReference() != nil:
		err = apierr.BadField("reference", "must be empty except with the subresource scale: the object has its own name")
	default:
		t, err = p.targetOf(authz.Update, req.GetObject())
	}
	if err != nil {
		return target{}, err
	}
	return t.on(req.GetSubresource())
}

func (p *plan) update(ctx context.Context, t target, req *apiv1.UpdateRequest) (*change, error) {
	if req.GetSubresource() == subresourceScale {
		return p.updateScale(ctx, t, req)
	}
	stored, err := p.storedForWrite(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := checkManager(req.GetFieldManager()); err != nil {
		return nil, err
	}
	o, err := decodeStored(t, req.GetObject())
	if err != nil {
		return nil, err
	}
	old, err := decodeWanted(t.kind, stored, o.GetMetadata())
	if err != nil {
		return nil, err
	}
	if stored, err = p.moveToLease(ctx, stored, req.GetLeaseId()); err != nil {
		return nil, err
	}
	return p.storeUpdated(ctx, req.GetSubresource(), t.kind, stored, old, o, req.GetFieldManager())
}

// moveToLease returns a stored object as one under another lease of the caller's; 0 leaves it where
// it is.
func (p *plan) moveToLease(ctx context.Context, stored *storage.Object, lease int64) (*storage.Object, error) {
	switch {
	case lease == 0 || lease == stored.Lease:
		return stored, nil
	case stored.Lease == 0:
		return nil, apierr.BadField("leaseId", "the object has no lease: a lease can be set only when an object is created")
	}
	if err := p.CheckLease(ctx, lease); err != nil {
		return nil, err
	}
	return stored.UnderLease(lease), nil
}

// storeUpdated plans replacing old, or what a subresource is of it, by updated, which a client sent
// in the asked version.
func (p *plan) storeUpdated(
	ctx context.Context, subresource string, asked *scheme.Kind, stored *storage.Object, old, updated scheme.Object, manager string,
) (*change, error) {
	if subresource == subresourceStatus {
		return p.updateStatusObject(ctx, asked, stored, old, updated, manager)
	}
	return p.updateObject(ctx, subresource, asked, stored, old, updated, manager)
}

// recordManager records manager as the owner of the fields, as the asked version names them, in
// which updated differs from old.
func (p *plan) recordManager(asked *scheme.Kind, subresource string, old, updated scheme.Object, manager string, now time.Time) error {
	if asked.Conversion == nil {
		return p.Merger.UpdateOf(subresource, old, updated, manager, now)
	}
	shown, err := asked.FromStored(updated)
	if err != nil {
		return err
	}
	if old != nil {
		if old, err = asked.FromStored(old); err != nil {
			return err
		}
	}
	if err := p.Merger.UpdateOf(subresource, old, shown, manager, now); err != nil {
		return err
	}
	updated.GetMetadata().ManagedFields = shown.GetMetadata().GetManagedFields()
	return nil
}

// updateObject plans replacing old, stored as it is, by updated, by a write to the object or to a
// subresource that is a view of it.
func (p *plan) updateObject(
	ctx context.Context, subresource string, asked *scheme.Kind, stored *storage.Object, old, updated scheme.Object, manager string,
) (*change, error) {
	k := asked.Stored()
	expected := updated.GetMetadata().GetResourceVersion() != ""
	c, err := p.completeWrite(ctx, subresource, asked, old, updated)
	if err != nil {
		return nil, err
	}
	if manager == "" && len(old.GetMetadata().GetManagedFields()) > 0 {
		manager = p.caller.User
	}
	updated.GetMetadata().ManagedFields = old.GetMetadata().GetManagedFields()
	if manager != "" {
		if err := p.recordManager(asked, subresource, old, updated, manager, time.Now()); err != nil {
			return nil, err
		}
	}
	if err := p.replace(ctx, c, stored); err != nil {
		return nil, err
	}
	c.expected, c.warnings = expected, warnings(k, updated)
	return c, nil
}

// completeWrite completes the object that a client sent in the asked version in place of old, by a
// write to the object or to a subresource that is a view of it, and checks it. old, which was
// decoded for this plan, gets the defaults of today. The change that it returns has the writes
// beside that of the object, such as allocations.
func (p *plan) completeWrite(
	ctx context.Context, subresource string, asked *scheme.Kind, old, updated scheme.Object,
) (*change, error) {
	k := asked.Stored()
	// A field whose default is newer than the stored object has not been changed by the client.
	k.Default(old)
	keepServerMetadata(updated.GetMetadata(), old.GetMetadata())
	if subresource == "" {
		if err := checkSent(asked, updated, old); err != nil {
			return nil, err
		}
	}
	part, validate := k.Part(subresource), k.ValidateUpdate
	if part != nil {
		if !part.OfStatus {
			setClientMetadata(updated.GetMetadata(), old.GetMetadata())
		}
		k.PreparePart(part, updated, old)
		validate = part.Validate
	} else {
		k.Default(updated)
		k.PrepareUpdate(updated, old)
	}
	attributes := p.attributes(admission.Update, subresource, k, updated, old)
	if err := p.Admission.Mutate(ctx, attributes); err != nil {
		return nil, err
	}
	k.Default(updated)
	extra, err := p.Registry.For(k).Allocate(ctx, p.get, updated, old)
	if err != nil {
		return nil, err
	}
	if errs := newErrors(k, updated, old); len(errs) > 0 {
		return nil, apierr.Invalid(k, old.GetMetadata().GetName(), errs)
	}
	if errs := validate(updated, old); len(errs) > 0 {
		return nil, apierr.Invalid(k, old.GetMetadata().GetName(), errs)
	}
	if err := p.Admission.Validate(ctx, attributes); err != nil {
		return nil, err
	}
	return &change{kind: k, object: updated, writes: extra, conditions: attributes.Conditions}, nil
}

// checkSent checks an object, which is of the stored version, by the rules of the version that the
// client sent it in, unless that is the stored one. old is the object that it replaces, nil for a
// new one.
func checkSent(asked *scheme.Kind, o, old scheme.Object) error {
	if asked.Conversion == nil || asked.Rules == nil {
		return nil
	}
	sent, err := asked.FromStored(o)
	if err != nil {
		return err
	}
	var errs field.ErrorList
	if old == nil {
		errs = append(asked.Validate(sent), asked.ValidateNew(sent)...)
	} else {
		was, err := asked.FromStored(old)
		if err != nil {
			return err
		}
		errs = append(newErrors(asked, sent, was), asked.ValidateUpdate(sent, was)...)
	}
	if len(errs) > 0 {
		return apierr.Invalid(asked, o.GetMetadata().GetName(), errs)
	}
	return nil
}

// newErrors returns the errors of an object that the stored one does not have as well. A value that
// was accepted before a rule was added must not prevent other changes, such as the removal of the
// last finalizer; Kubernetes calls this ratcheting.
func newErrors(k *scheme.Kind, updated, old scheme.Object) field.ErrorList {
	errs := k.Validate(updated)
	if len(errs) == 0 {
		return nil
	}
	known := k.Validate(defaulted(k, old))
	return slices.DeleteFunc(errs, func(e *field.Error) bool {
		return slices.ContainsFunc(known, func(o *field.Error) bool {
			return e.Type == o.Type && e.Field == o.Field && e.Detail == o.Detail && reflect.DeepEqual(e.BadValue, o.BadValue)
		})
	})
}

// defaulted returns a copy of a stored object with the defaults of today.
func defaulted(k *scheme.Kind, stored scheme.Object) scheme.Object {
	o := proto.Clone(stored).(scheme.Object)
	k.Default(o)
	return o
}

// replace completes a change of a stored object by the write that stores c.object in its place:
// none when they are the same, and the object's removal when it was only kept for finalizers that
// are gone now.
func (p *plan) replace(ctx context.Context, c *change, stored *storage.Object) error {
	o := c.object
	if finished(o) {
		release, err := p.Registry.For(c.kind).Release(ctx, p.get, o)
		if err != nil {
			return err
		}
		c.writes, c.removed = append([]storage.Write{{Key: stored.Key, Delete: true, Expect: stored.Revision}}, release...), true
		return nil
	}
	b, err := registry.Encode(c.kind, o)
	if err != nil {
		return err
	}
	o.GetMetadata().ResourceVersion = strconv.FormatInt(stored.Revision, 10)
	write := storage.Write{Key: stored.Key, Bytes: b, Expect: stored.Revision, Lease: stored.Lease}
	if bytes.Equal(b, stored.Bytes) && len(c.writes) == 0 {
		c.same = &write
		return nil
	}
	c.writes = append([]storage.Write{write}, c.writes...)
	return nil
}

// keepServerMetadata puts back what only the server writes.
func keepServerMetadata(meta, old *metav1.ObjectMeta) {
	meta.Uid, meta.CreationTimestamp = old.GetUid(), old.GetCreationTimestamp()
	meta.Generation, meta.GenerateName = old.GetGeneration(), old.GetGenerateName()
	meta.DeletionTimestamp, meta.DeletionGracePeriodSeconds = old.GetDeletionTimestamp(), old.DeletionGracePeriodSeconds
}
