package apiserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kind"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/apply"
	"github.com/xebec-project/xebec/services/apiserver/authz"
	"github.com/xebec-project/xebec/services/apiserver/patch"
)

// Apply merges the caller's fields into the object, creating it when absent.
func (s *Service) Apply(ctx context.Context, req *apiv1.ApplyRequest) (*apiv1.ApplyResponse, error) {
	if err := s.preauthorizeObject(ctx, authz.Patch, req.GetObject()); err != nil {
		return nil, err
	}
	c, err := s.writeOne(ctx, nil, req.GetDryRun(), func(ctx context.Context, get reader) (*change, error) {
		return s.planApply(ctx, get, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(c.kind, c.object)
	return &apiv1.ApplyResponse{Object: out, Result: c.applied, Warnings: c.warnings}, err
}

func (s *Service) planApply(ctx context.Context, get reader, req *apiv1.ApplyRequest) (*change, error) {
	if req.GetFieldManager() == "" {
		return nil, apierr.BadField("fieldManager", "is required: it names who owns the applied fields")
	}
	if err := checkManager(req.GetFieldManager()); err != nil {
		return nil, err
	}
	t, err := targetOf(req.GetObject())
	if err != nil {
		return nil, err
	}
	stored, err := s.storedForWrite(ctx, get, authz.Patch, t)
	missing := apierr.IsNotFound(err)
	if missing {
		err = s.authorize(ctx, t.ask(authz.Create))
	}
	if err != nil {
		return nil, err
	}
	k, config, err := decodeAny(req.GetObject())
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
	warn := warnings(k, config)
	if missing {
		return s.applyNew(ctx, get, k, config, req, warn)
	}
	live, err := decodeWanted(k, stored, meta)
	if err != nil {
		return nil, err
	}
	merged, err := s.merge(k, live, config, req)
	if err != nil {
		return nil, err
	}
	if apply.Same(merged, live) {
		return &change{kind: k, object: live, applied: apiv1.ApplyResult_APPLY_RESULT_UNCHANGED, warnings: warn}, nil
	}
	owners := merged.GetMetadata().GetManagedFields()
	extra, err := s.completeUpdate(ctx, get, k, live, merged)
	if err != nil {
		return nil, err
	}
	merged.GetMetadata().ManagedFields = owners
	c, err := s.replaceChange(ctx, get, k, stored, merged, extra)
	if err != nil {
		return nil, err
	}
	c.applied, c.warnings = apiv1.ApplyResult_APPLY_RESULT_CONFIGURED, warn
	if len(c.writes) == 0 {
		c.applied = apiv1.ApplyResult_APPLY_RESULT_UNCHANGED
	}
	return c, nil
}

func (s *Service) applyNew(ctx context.Context, get reader, k *kind.Kind, config kind.Object, req *apiv1.ApplyRequest, warn []string) (*change, error) {
	meta := config.GetMetadata()
	if meta.GetUid() != "" || meta.GetResourceVersion() != "" {
		return nil, apierr.Conflict(k, meta.GetName(), "it names a uid or resourceVersion but does not exist")
	}
	merged, err := s.merge(k, nil, config, req)
	if err != nil {
		return nil, err
	}
	c, err := s.createChange(ctx, get, k, merged, "", 0)
	if err != nil {
		return nil, err
	}
	c.applied, c.warnings = apiv1.ApplyResult_APPLY_RESULT_CREATED, warn
	return c, nil
}

func (s *Service) merge(k *kind.Kind, live, config kind.Object, req *apiv1.ApplyRequest) (kind.Object, error) {
	merged, err := s.merger.Apply(live, config, req.GetFieldManager(), req.GetForce(), time.Now())
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

// Patch changes part of an object by a JSON merge patch (RFC 7386) or a JSON patch (RFC 6902).
func (s *Service) Patch(ctx context.Context, req *apiv1.PatchRequest) (*apiv1.PatchResponse, error) {
	if err := s.preauthorizeReference(ctx, authz.Patch, req.GetObject()); err != nil {
		return nil, err
	}
	if err := checkManager(req.GetFieldManager()); err != nil {
		return nil, err
	}
	patch, err := parsePatch(req)
	if err != nil {
		return nil, err
	}
	c, err := s.writeOne(ctx, req.GetFence(), req.GetDryRun(), func(ctx context.Context, get reader) (*change, error) {
		return s.planPatch(ctx, get, req, patch)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(c.kind, c.object)
	return &apiv1.PatchResponse{Object: out, Warnings: c.warnings}, err
}

func parsePatch(req *apiv1.PatchRequest) (patch.Patch, error) {
	parse := patch.ParseMerge
	switch req.GetType() {
	case apiv1.PatchType_PATCH_TYPE_MERGE:
	case apiv1.PatchType_PATCH_TYPE_JSON:
		parse = patch.ParseJSON
	default:
		return nil, apierr.BadField("type", "is required: PATCH_TYPE_MERGE or PATCH_TYPE_JSON")
	}
	p, err := parse(req.GetPatch())
	if err != nil {
		return nil, apierr.BadField("patch", "%v", err)
	}
	return p, nil
}

func (s *Service) planPatch(ctx context.Context, get reader, req *apiv1.PatchRequest, p patch.Patch) (*change, error) {
	k, key, err := resolveReference(req.GetObject())
	if err != nil {
		return nil, err
	}
	stored, old, err := s.currentForWrite(ctx, get, authz.Patch, k, &metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name})
	if err != nil {
		return nil, err
	}
	doc, err := codec.Marshal(old)
	if err != nil {
		return nil, fmt.Errorf("%s %q as JSON: %w", k.Name, key.Name, err)
	}
	patched, err := p.Apply(ctx, doc)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, apierr.BadField("patch", "does not apply to %s %q: %v", k.Name, key.Name, err)
	}
	updated, err := codec.Unmarshal(patched)
	if err != nil {
		return nil, apierr.BadField("patch", "%s %q would not be valid: %v", k.Name, key.Name, err)
	}
	if kind.Of(updated) != k || updated.GetMetadata() == nil || updated.GetMetadata().GetName() != key.Name || updated.GetMetadata().GetNamespace() != key.Namespace {
		return nil, apierr.BadField("patch", "must not change apiVersion, kind, metadata.name or metadata.namespace")
	}
	if updated.GetMetadata().GetResourceVersion() != old.GetMetadata().GetResourceVersion() {
		return nil, apierr.Conflict(k, key.Name, "the patch names a resourceVersion that is not the current one")
	}
	if uid := updated.GetMetadata().GetUid(); uid != old.GetMetadata().GetUid() {
		return nil, apierr.Conflict(k, key.Name, fmt.Sprintf("its uid is %s, not %s as in the patch: it was deleted and created again", old.GetMetadata().GetUid(), uid))
	}
	// A patch of what was just read is conditional only when the patch itself names a version; a conflict in between is
	// this server's to redo.
	updated.GetMetadata().ResourceVersion = ""
	return s.updateChange(ctx, get, k, stored, old, updated, req.GetFieldManager())
}
