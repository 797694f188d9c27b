package apiserver

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// The writes go through the pipeline; the reads are in reads.go.

// Create stores a new object.
func (s *Service) Create(ctx context.Context, req *apiv1.CreateRequest) (*apiv1.CreateResponse, error) {
	return s.pipeline.Create(ctx, callerOf(ctx), req)
}

// Update replaces an object except its status.
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

// Evict deletes a pod if its disruption budget allows that.
func (s *Service) Evict(ctx context.Context, req *apiv1.EvictRequest) (*apiv1.EvictResponse, error) {
	return s.pipeline.Evict(ctx, callerOf(ctx), req)
}

// Transact makes several writes in one etcd transaction.
func (s *Service) Transact(ctx context.Context, req *apiv1.TransactRequest) (*apiv1.TransactResponse, error) {
	return s.pipeline.Transact(ctx, callerOf(ctx), req)
}

// collectionDeletes is the number of objects of a collection that are deleted at the same time.
const collectionDeletes = 16

// DeleteCollection deletes what a List with the same selectors returns, object by object. After a
// failure it begins no other deletion.
func (s *Service) DeleteCollection(ctx context.Context, req *apiv1.DeleteCollectionRequest) (*apiv1.DeleteCollectionResponse, error) {
	sel, err := s.selectFor(ctx, authz.DeleteCollection, req)
	if err != nil {
		return nil, err
	}
	if sel.kind.Namespaced && req.GetNamespace() == "" {
		return nil, apierr.BadField("namespace", "is required: a collection is deleted one namespace at a time")
	}
	list, err := s.store.List(ctx, storage.ListOptions{
		Group: sel.stored.Group, Kind: sel.stored.Name, Namespace: req.GetNamespace(), Match: sel.match,
	})
	if err != nil {
		return nil, storage.APIError(err)
	}
	deleted := make([]*apiv1.DeletedObject, len(list.Objects))
	deletes, bounded := errgroup.WithContext(ctx)
	deletes.SetLimit(collectionDeletes)
	for i, o := range list.Objects {
		deletes.Go(func() (err error) {
			if bounded.Err() == nil {
				deleted[i], err = s.deleteOfCollection(ctx, sel.kind, o.Key, o.Meta().GetUid(), req)
			}
			return err
		})
	}
	err = deletes.Wait()
	deleted = slices.DeleteFunc(deleted, func(o *apiv1.DeletedObject) bool { return o == nil })
	if err != nil {
		return nil, fmt.Errorf("after deleting %d objects: %w", len(deleted), err)
	}
	return &apiv1.DeleteCollectionResponse{Deleted: int64(len(deleted)), Objects: deleted}, nil
}

// deleteOfCollection deletes an object of a collection. It returns nil if the object is gone, or
// was replaced by another one of the same name.
func (s *Service) deleteOfCollection(
	ctx context.Context,
	k *scheme.Kind,
	key storage.Key,
	uid string,
	req *apiv1.DeleteCollectionRequest,
) (*apiv1.DeletedObject, error) {
	removed, err := s.pipeline.DeleteOfCollection(ctx, callerOf(ctx), &apiv1.DeleteRequest{
		Object: &apiv1.ObjectReference{Group: k.Group, Version: k.Version, Kind: k.Name, Namespace: key.Namespace, Name: key.Name}, Uid: uid,
		GracePeriodSeconds: req.GracePeriodSeconds, PropagationPolicy: req.GetPropagationPolicy(), DryRun: req.GetDryRun(),
		Fence: req.GetFence(), Conditions: req.GetConditions(), FieldManager: req.GetFieldManager(),
	})
	if apierr.IsNotFound(err) || apierr.IsConflict(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &apiv1.DeletedObject{Namespace: key.Namespace, Name: key.Name, Uid: uid, Removed: removed}, nil
}
