package pipeline

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

const subresourceStatus = "status"

// UpdateStatus replaces only the object's status.
func (p *Pipeline) UpdateStatus(
	ctx context.Context, caller authz.Caller, req *apiv1.UpdateStatusRequest,
) (*apiv1.UpdateStatusResponse, error) {
	t, err := p.targetOf(authz.UpdateStatus, req.GetObject())
	if err == nil {
		err = p.Preauthorize(ctx, caller, t.attributes())
	}
	if err != nil {
		return nil, err
	}
	c, err := p.writeOne(ctx, caller, req, func(ctx context.Context, p *plan) (*change, error) {
		return p.updateStatus(ctx, t, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(t.kind, c.object)
	return &apiv1.UpdateStatusResponse{Object: out}, err
}

func (p *plan) updateStatus(ctx context.Context, t target, req *apiv1.UpdateStatusRequest) (*change, error) {
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
	// Clients of version 0.1.0 send objects with nothing but their status here.
	setClientMetadata(o.GetMetadata(), old.GetMetadata())
	return p.updateStatusObject(ctx, t.kind, stored, old, o, req.GetFieldManager())
}

// updateStatusObject plans storing the status of updated, and those metadata that status writes of
// the kind change, in place of old, stored as it is.
func (p *plan) updateStatusObject(
	ctx context.Context, asked *scheme.Kind, stored *storage.Object, old, updated scheme.Object, manager string,
) (*change, error) {
	expected := updated.GetMetadata().GetResourceVersion() != ""
	c, err := p.completeStatus(ctx, asked.Stored(), old, updated)
	if err != nil {
		return nil, err
	}
	if manager != "" {
		if err := p.recordManager(asked, subresourceStatus, old, updated, manager, time.Now()); err != nil {
			return nil, err
		}
	}
	c.expected = expected
	return c, p.replace(ctx, c, stored)
}

// completeStatus makes a complete object of what a client sent as the status of old, and checks it.
func (p *plan) completeStatus(ctx context.Context, k *scheme.Kind, old, updated scheme.Object) (*change, error) {
	if !k.HasStatus() {
		return nil, apierr.Unsupported("%s have no status", k.Resource())
	}
	wrote := updated.GetMetadata()
	k.PrepareStatusUpdate(updated, old)
	meta := updated.GetMetadata()
	setClientMetadata(meta, wrote)
	p.Registry.For(k).KeepStatusMetadata(updated, old)
	attributes := p.attributes(admission.Update, subresourceStatus, k, updated, old)
	if err := p.Admission.Mutate(ctx, attributes); err != nil {
		return nil, err
	}
	errs := k.ValidateStatusUpdate(updated, old)
	if !sameMetadata(meta, old.GetMetadata()) {
		errs = append(errs, metadataErrors(newErrors(k, updated, old))...)
	}
	if len(errs) > 0 {
		return nil, apierr.Invalid(k, old.GetMetadata().GetName(), errs)
	}
	if err := p.Admission.Validate(ctx, attributes); err != nil {
		return nil, err
	}
	return &change{kind: k, object: updated, conditions: attributes.Conditions}, nil
}

// setClientMetadata sets the metadata that clients may change through a status to that of another
// object.
func setClientMetadata(meta, from *metav1.ObjectMeta) {
	meta.Labels, meta.Annotations = from.GetLabels(), from.GetAnnotations()
	meta.Finalizers, meta.OwnerReferences = from.GetFinalizers(), from.GetOwnerReferences()
}

func sameMetadata(a, b *metav1.ObjectMeta) bool {
	owners := func(x, y *metav1.OwnerReference) bool { return proto.Equal(x, y) }
	return maps.Equal(a.GetLabels(), b.GetLabels()) && maps.Equal(a.GetAnnotations(), b.GetAnnotations()) &&
		slices.Equal(a.GetFinalizers(), b.GetFinalizers()) && slices.EqualFunc(a.GetOwnerReferences(), b.GetOwnerReferences(), owners)
}

// metadataErrors are those about metadata: a status write is not refused for the rest of the
// object, which it does not change.
func metadataErrors(errs field.ErrorList) field.ErrorList {
	return slices.DeleteFunc(errs, func(e *field.Error) bool { return !strings.HasPrefix(e.Field, "metadata") })
}
