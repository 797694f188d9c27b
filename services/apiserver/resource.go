package apiserver

import (
	"context"
	"fmt"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// The writes go through the pipeline; the reads are in reads.go.

// Create stores a new object.
func (s *Service) Create(ctx context.Context, req *apiv1.CreateRequest) (*apiv1.CreateResponse, error) {
	return s.pipeline.Create(ctx, callerOf(ctx), req)
}

// Update replaces an object but for its status.
func (s *Service) Update(ctx context.Context, req *apiv1.UpdateRequest) (*apiv1.UpdateResponse, error) {
	return s.pipeline.Update(ctx, callerOf(ctx), req)
}

// UpdateStatus replaces only the object's status.
func (s *Service) UpdateStatus(ctx context.Context, req *apiv1.UpdateStatusRequest) (*apiv1.UpdateStatusResponse, error) {
	return s.pipeline.UpdateStatus(ctx, callerOf(ctx), req)
}

// Apply merges the caller's fields into the object, creating it when absent.
func (s *Service) Apply(ctx context.Context, req *apiv1.ApplyRequest) (*apiv1.ApplyResponse, error) {
	return s.pipeline.Apply(ctx, callerOf(ctx), req)
}

// Patch changes part of an object.
func (s *Service) Patch(ctx context.Context, req *apiv1.PatchRequest) (*apiv1.PatchResponse, error) {
	return s.pipeline.Patch(ctx, callerOf(ctx), req)
}

// Delete removes an object or marks it for deletion.
func (s *Service) Delete(ctx context.Context, req *apiv1.DeleteRequest) (*apiv1.DeleteResponse, error) {
	return s.pipeline.Delete(ctx, callerOf(ctx), req)
}

// Transact makes several writes in one etcd transaction.
func (s *Service) Transact(ctx context.Context, req *apiv1.TransactRequest) (*apiv1.TransactResponse, error) {
	return s.pipeline.Transact(ctx, callerOf(ctx), req)
}

// DeleteCollection deletes what a List with the same selectors returns, object by object.
func (s *Service) DeleteCollection(ctx context.Context, req *apiv1.DeleteCollectionRequest) (*apiv1.DeleteCollectionResponse, error) {
	sel, err := s.selectFor(ctx, authz.DeleteCollection, req)
	if err != nil {
		return nil, err
	}
	if sel.kind.Namespaced && req.GetNamespace() == "" {
		return nil, apierr.BadField("namespace", "is required: a collection is deleted one namespace at a time")
	}
	list, err := s.store.List(ctx, storage.ListOptions{Group: sel.stored.Group, Kind: sel.stored.Name, Namespace: req.GetNamespace(), Match: sel.match})
	if err != nil {
		return nil, storage.APIError(err)
	}
	resp := &apiv1.DeleteCollectionResponse{}
	for _, o := range list.Objects {
		err := s.pipeline.DeleteOfCollection(ctx, callerOf(ctx), &apiv1.DeleteRequest{
			Object:             &apiv1.ObjectReference{Group: sel.kind.Group, Version: sel.kind.Version, Kind: sel.kind.Name, Namespace: o.Key.Namespace, Name: o.Key.Name},
			GracePeriodSeconds: req.GracePeriodSeconds, PropagationPolicy: req.GetPropagationPolicy(), DryRun: req.GetDryRun(), Fence: req.GetFence(), Conditions: req.GetConditions(), FieldManager: req.GetFieldManager(),
			Uid: o.Meta().GetUid(),
		})
		switch {
		case apierr.IsNotFound(err) || apierr.IsConflict(err): // gone, or another one of its name by now
		case err != nil:
			return nil, fmt.Errorf("after deleting %d objects: %w", resp.Deleted, err)
		default:
			resp.Deleted++
		}
	}
	return resp, nil
}
