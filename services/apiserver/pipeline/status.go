package pipeline

import (
	"context"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
)

// UpdateStatus replaces only the object's status.
func (p *Pipeline) UpdateStatus(ctx context.Context, caller authz.Caller, req *apiv1.UpdateStatusRequest) (*apiv1.UpdateStatusResponse, error) {
	if err := p.preauthorizeObject(ctx, caller, authz.UpdateStatus, req.GetObject()); err != nil {
		return nil, err
	}
	c, err := p.writeOne(ctx, caller, req, func(ctx context.Context, p *plan) (*change, error) {
		return p.updateStatus(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(c.kind, c.object)
	return &apiv1.UpdateStatusResponse{Object: out}, err
}

func (p *plan) updateStatus(ctx context.Context, req *apiv1.UpdateStatusRequest) (*change, error) {
	stored, err := p.storedForUpdate(ctx, authz.UpdateStatus, req.GetObject())
	if err != nil {
		return nil, err
	}
	k, o, err := decodeAny(req.GetObject())
	if err != nil {
		return nil, err
	}
	if !k.HasStatus {
		return nil, apierr.Unsupported("%s have no status", k.Resource())
	}
	meta := o.GetMetadata()
	expected := meta.GetResourceVersion() != ""
	old, err := decodeWanted(k, stored, meta)
	if err != nil {
		return nil, err
	}
	k.PrepareStatusUpdate(o, old)
	attributes := p.attributes(admission.Update, "status", k, o, old)
	if err := p.Admission.Mutate(ctx, attributes); err != nil {
		return nil, err
	}
	if errs := k.ValidateStatusUpdate(o, old); len(errs) > 0 {
		return nil, apierr.Invalid(k, stored.Key.Name, errs)
	}
	if err := p.Admission.Validate(ctx, attributes); err != nil {
		return nil, err
	}
	c := &change{kind: k, object: o, conditions: attributes.Conditions, expected: expected}
	return c, p.replace(ctx, c, stored)
}
