package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/apply"
	"github.com/xebec-project/xebec/services/apiserver/patch"
)

// Apply merges the caller's fields into the object, creating it when absent.
func (p *Pipeline) Apply(ctx context.Context, caller authz.Caller, req *apiv1.ApplyRequest) (*apiv1.ApplyResponse, error) {
	t, err := p.targetOfApply(req)
	if err == nil {
		err = p.Preauthorize(ctx, caller, t.attributes())
	}
	if err != nil {
		return nil, err
	}
	c, err := p.writeOne(ctx, caller, req, func(ctx context.Context, p *plan) (*change, error) {
		return p.apply(ctx, t, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(t.kind, c.object)
	return &apiv1.ApplyResponse{Object: out, Result: c.applied, Warnings: c.warnings}, err
}

func (p *plan) apply(ctx context.Context, t target, req *apiv1.ApplyRequest) (*change, error) {
	if req.GetFieldManager() == "" {
		return nil, apierr.BadField("fieldManager", "is required: it names who owns the applied fields")
	}
	if err := checkManager(req.GetFieldManager()); err != nil {
		return nil, err
	}
	stored, err := p.storedForWrite(ctx, t)
	missing := apierr.IsNotFound(err) && req.GetSubresource() == ""
	if missing {
		err = p.Authorize(ctx, p.caller, t.as(authz.Create).attributes())
	}
	if err != nil {
		return nil, err
	}
	asked := t.kind
	k := asked.Stored()
	config, written, err := p.decodeApplied(t, req)
	if err != nil {
		return nil, err
	}
	meta := config.GetMetadata()
	if len(meta.GetManagedFields()) > 0 {
		return nil, apierr.BadField("metadata.managedFields", "must be empty in an applied object: the server keeps it")
	}
	if meta.GetName() == "" {
		return nil, apierr.BadField("metadata.name", "is required: generateName cannot be applied")
	}
	warn := codec.Warnings(config)
	if asked.Rules != nil {
		warn = warnings(asked, config)
	}
	if missing {
		return p.applyNew(ctx, asked, config, written, req, warn)
	}
	live, err := decodeWanted(asked, stored, meta)
	if err != nil {
		return nil, err
	}
	shown, err := asked.FromStored(live)
	if err != nil {
		return nil, err
	}
	merged, err := p.merge(asked, shown, config, written, req)
	if err != nil {
		return nil, err
	}
	if apply.Same(merged, shown) {
		return &change{kind: k, object: live, applied: apiv1.ApplyResult_APPLY_RESULT_UNCHANGED, warnings: warn}, nil
	}
	if merged, err = toStored(asked, merged); err != nil {
		return nil, err
	}
	owners := merged.GetMetadata().GetManagedFields()
	var c *change
	if req.GetSubresource() == subresourceStatus {
		c, err = p.completeStatus(ctx, k, live, merged)
	} else {
		c, err = p.completeWrite(ctx, req.GetSubresource(), asked, live, merged)
	}
	if err != nil {
		return nil, err
	}
	merged.GetMetadata().ManagedFields = owners
	if err := p.replace(ctx, c, stored); err != nil {
		return nil, err
	}
	c.applied, c.warnings = apiv1.ApplyResult_APPLY_RESULT_CONFIGURED, warn
	if len(c.writes) == 0 {
		c.applied = apiv1.ApplyResult_APPLY_RESULT_UNCHANGED
	}
	return c, nil
}

func (p *plan) applyNew(
	ctx context.Context, asked *scheme.Kind, config scheme.Object, written map[string]any, req *apiv1.ApplyRequest, warn []string,
) (*change, error) {
	meta := config.GetMetadata()
	if meta.GetUid() != "" || meta.GetResourceVersion() != "" {
		return nil, apierr.Conflict(asked, meta.GetName(), "it names a uid or resourceVersion but does not exist")
	}
	merged, err := p.merge(asked, nil, config, written, req)
	if err != nil {
		return nil, err
	}
	if merged, err = toStored(asked, merged); err != nil {
		return nil, err
	}
	c, err := p.createObject(ctx, asked, merged, "", 0)
	if err != nil {
		return nil, err
	}
	c.applied, c.warnings = apiv1.ApplyResult_APPLY_RESULT_CREATED, warn
	return c, nil
}

func (p *plan) merge(k *scheme.Kind, live, config scheme.Object, written map[string]any, req *apiv1.ApplyRequest) (scheme.Object, error) {
	merged, err := p.Merger.ApplyTo(req.GetSubresource(), live, config, written, req.GetFieldManager(), req.GetForce(), time.Now())
	if conflict := (*apply.ConflictError)(nil); errors.As(err, &conflict) {
		conflicts := make([]apierr.FieldConflict, len(conflict.Conflicts))
		for i, c := range conflict.Conflicts {
			conflicts[i] = apierr.FieldConflict{Field: c.Field, Manager: c.Manager}
		}
		return nil, apierr.ApplyConflict(k, config.GetMetadata().GetName(), conflicts)
	}
	if err != nil {
		return nil, apierr.BadRequest("apply %s %q: %v", k.Name, config.GetMetadata().GetName(), err)
	}
	return merged, nil
}

// targetOfApply returns the target of an apply.
func (p *Pipeline) targetOfApply(req *apiv1.ApplyRequest) (t target, err error) {
	switch {
	case req.GetSubresource() == subresourceScale:
		err = apierr.Unsupported("the subresource scale is updated or patched, not applied: apply the field of the object instead")
	case len(req.GetJson()) == 0:
		t, err = p.targetOf(authz.Patch, req.GetObject())
	case req.GetObject() != nil:
		err = apierr.BadField("json", "must be empty when object is set: send the object in one form")
	default:
		t, err = p.targetOfReference(authz.Patch, req.GetReference())
	}
	if err != nil {
		return target{}, err
	}
	return t.on(req.GetSubresource())
}

// decodeApplied decodes the applied object, which t names. written is the JSON that it came as, nil
// for none.
func (p *Pipeline) decodeApplied(t target, req *apiv1.ApplyRequest) (config scheme.Object, written map[string]any, err error) {
	if len(req.GetJson()) == 0 {
		config, err := decodeAny(t, req.GetObject())
		return config, nil, err
	}
	if err := patch.CheckDepth(req.GetJson()); err != nil {
		return nil, nil, apierr.BadField("json", "%v", err)
	}
	if config, err = p.Codec.Unmarshal(req.GetJson()); err != nil {
		return nil, nil, apierr.BadField("json", "%v", err)
	}
	if !isObjectOf(t, config) {
		return nil, nil, apierr.BadField("json", "must be the object that reference names: %s %q", t.kind.Name, t.key.Name)
	}
	if err := json.Unmarshal(req.GetJson(), &written); err != nil {
		return nil, nil, apierr.BadField("json", "%v", err)
	}
	return config, written, nil
}
