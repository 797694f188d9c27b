package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Create stores a new object.
func (p *Pipeline) Create(ctx context.Context, caller authz.Caller, req *apiv1.CreateRequest) (*apiv1.CreateResponse, error) {
	t, err := p.targetOf(authz.Create, req.GetObject())
	if err == nil {
		err = p.Preauthorize(ctx, caller, t.attributes())
	}
	if err != nil {
		return nil, err
	}
	c, err := p.writeOne(ctx, caller, req, func(ctx context.Context, p *plan) (*change, error) {
		return p.create(ctx, t, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(t.kind, c.object)
	return &apiv1.CreateResponse{Object: out, Warnings: c.warnings}, err
}

func (p *plan) create(ctx context.Context, t target, req *apiv1.CreateRequest) (*change, error) {
	right := t.attributes()
	right.NodeName = t.node
	if err := p.Authorize(ctx, p.caller, right); err != nil {
		return nil, err
	}
	if err := checkManager(req.GetFieldManager()); err != nil {
		return nil, err
	}
	o, err := decodeStored(t, req.GetObject())
	if err != nil {
		return nil, err
	}
	o.GetMetadata().ManagedFields = nil // the server's to keep; an exported object brings its own
	return p.createObject(ctx, t.kind, o, req.GetFieldManager(), req.GetLeaseId())
}

// createObject makes a complete object of what a client sent in the asked version, checks it and
// plans its creation.
func (p *plan) createObject(ctx context.Context, asked *scheme.Kind, o scheme.Object, manager string, lease int64) (*change, error) {
	k := asked.Stored()
	meta := o.GetMetadata()
	if meta.GetResourceVersion() != "" {
		return nil, apierr.BadField("metadata.resourceVersion", "must not be set on an object to be created")
	}
	if meta.GetName() == "" && meta.GetGenerateName() != "" {
		meta.Name = meta.GetGenerateName() + registry.NameSuffix()
	}
	now := time.Now()
	meta.Uid, meta.CreationTimestamp = uuid.NewString(), timestamppb.New(now.Truncate(time.Second))
	meta.DeletionTimestamp, meta.DeletionGracePeriodSeconds = nil, nil
	if err := checkSent(asked, o, nil); err != nil {
		return nil, err
	}
	k.PrepareCreate(o)
	if err := p.CheckLease(ctx, lease); err != nil {
		return nil, err
	}
	k.Default(o)
	attributes := p.attributes(admission.Create, "", k, o, nil)
	if err := p.Admission.Mutate(ctx, attributes); err != nil {
		return nil, err
	}
	k.Default(o)
	extra, err := p.Registry.For(k).Allocate(ctx, p.get, o, nil)
	if err != nil {
		return nil, err
	}
	if errs := append(k.Validate(o), k.ValidateNew(o)...); len(errs) > 0 {
		return nil, apierr.Invalid(k, meta.GetName(), errs)
	}
	if err := p.Admission.Validate(ctx, attributes); err != nil {
		return nil, err
	}
	key := registry.KeyOfObject(k, o)
	if _, err := p.get(ctx, key); err == nil {
		return nil, apierr.AlreadyExists(k, key.Name)
	} else if !errors.Is(err, storage.ErrNotFound) {
		return nil, storage.APIError(err)
	}
	if manager != "" && len(meta.GetManagedFields()) == 0 {
		if err := p.recordManager(asked, "", nil, o, manager, now); err != nil {
			return nil, err
		}
	}
	b, err := registry.Encode(k, o)
	if err != nil {
		return nil, err
	}
	writes := append([]storage.Write{{Key: key, Bytes: b, Lease: lease}}, extra...)
	return &change{kind: k, object: o, writes: writes, conditions: attributes.Conditions, warnings: warnings(k, o)}, nil
}

// warnings are what a client's user should know about an accepted object: fields that have no
// effect yet.
func warnings(k *scheme.Kind, o scheme.Object) []string {
	return append(codec.Warnings(o), k.Warnings(o)...)
}
