package pipeline

import (
	"context"
	"fmt"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	autoscalingv1 "github.com/xebec-project/xebec/proto/xebec/autoscaling/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/patch"
)

// Patch changes part of an object by a JSON merge patch (RFC 7386) or a JSON patch (RFC 6902).
func (p *Pipeline) Patch(ctx context.Context, caller authz.Caller, req *apiv1.PatchRequest) (*apiv1.PatchResponse, error) {
	t, err := p.targetOfPatch(req)
	if err == nil {
		err = p.Preauthorize(ctx, caller, t.attributes())
	}
	if err != nil {
		return nil, err
	}
	if err := checkManager(req.GetFieldManager()); err != nil {
		return nil, err
	}
	parsed, err := parsePatch(t, req)
	if err != nil {
		return nil, err
	}
	c, err := p.writeOne(ctx, caller, req, func(ctx context.Context, p *plan) (*change, error) {
		return p.patch(ctx, t, req, parsed)
	})
	if err != nil {
		return nil, err
	}
	out, err := c.encode(t.kind)
	return &apiv1.PatchResponse{Object: out, Warnings: c.warnings}, err
}

// targetOfPatch returns the target of a patch.
func (p *Pipeline) targetOfPatch(req *apiv1.PatchRequest) (target, error) {
	t, err := p.targetOfReference(authz.Patch, req.GetObject())
	if err != nil {
		return target{}, err
	}
	return t.on(req.GetSubresource())
}

func parsePatch(t target, req *apiv1.PatchRequest) (patch.Patch, error) {
	parse := patch.ParseMerge
	switch req.GetType() {
	case apiv1.PatchType_PATCH_TYPE_MERGE:
	case apiv1.PatchType_PATCH_TYPE_JSON:
		parse = patch.ParseJSON
	case apiv1.PatchType_PATCH_TYPE_STRATEGIC:
		message := t.kind.New().ProtoReflect().Descriptor()
		if req.GetSubresource() == subresourceScale {
			message = (&autoscalingv1.Scale{}).ProtoReflect().Descriptor()
		}
		parse = func(text []byte) (patch.Patch, error) { return patch.ParseStrategic(text, message) }
	default:
		return nil, apierr.BadField("type", "is required: PATCH_TYPE_MERGE, PATCH_TYPE_JSON or PATCH_TYPE_STRATEGIC")
	}
	parsed, err := parse(req.GetPatch())
	if err != nil {
		return nil, apierr.BadField("patch", "%v", err)
	}
	return parsed, nil
}

func (p *plan) patch(ctx context.Context, t target, req *apiv1.PatchRequest, parsed patch.Patch) (*change, error) {
	asked, name := t.kind, t.key.Name
	stored, old, err := p.currentForWrite(ctx, t, &metav1.ObjectMeta{})
	if err != nil {
		return nil, err
	}
	if req.GetSubresource() == subresourceScale {
		return p.patchScale(ctx, asked, stored, old, req, parsed)
	}
	shown, err := asked.FromStored(old)
	if err != nil {
		return nil, err
	}
	doc, err := p.Codec.Marshal(shown)
	if err != nil {
		return nil, fmt.Errorf("%s %q as JSON: %w", asked.Name, name, err)
	}
	patched, err := parsed.Apply(ctx, doc)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, apierr.BadField("patch", "does not apply to %s %q: %v", asked.Name, name, err)
	}
	updated, err := p.Codec.Unmarshal(patched)
	if err != nil {
		return nil, apierr.BadField("patch", "%s %q would not be valid: %v", asked.Name, name, err)
	}
	if !isObjectOf(t, updated) {
		return nil, apierr.BadField("patch", "must not change apiVersion, kind, metadata.name or metadata.namespace")
	}
	if updated.GetMetadata().GetResourceVersion() != old.GetMetadata().GetResourceVersion() {
		return nil, apierr.Conflict(asked, name, "the patch names a resourceVersion that is not the current one")
	}
	if uid := updated.GetMetadata().GetUid(); uid != old.GetMetadata().GetUid() {
		return nil, apierr.Conflict(asked, name, fmt.Sprintf("its uid is %s, not %s as in the patch: it was deleted and created again",
			old.GetMetadata().GetUid(), uid))
	}
	// A patch of what was just read is conditional only when the patch itself names a version; a
	// conflict in between is this server's to redo.
	updated.GetMetadata().ResourceVersion = ""
	if updated, err = toStored(asked, updated); err != nil {
		return nil, err
	}
	return p.storeUpdated(ctx, req.GetSubresource(), asked, stored, old, updated, req.GetFieldManager())
}
