package clienttest

import (
	"context"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Evict implements apiv1.ResourceServiceServer. It asks no budget: a test refuses by Intercept.
func (s *Server) Evict(_ context.Context, req *apiv1.EvictRequest) (*apiv1.EvictResponse, error) {
	if err := s.enter("Evict", req); err != nil {
		return nil, err
	}
	m, options := req.GetEviction().GetMetadata(), req.GetEviction().GetDeleteOptions()
	deletion := &apiv1.DeleteRequest{
		Object:             &apiv1.ObjectReference{Kind: "Pod", Namespace: m.GetNamespace(), Name: m.GetName()},
		GracePeriodSeconds: options.GracePeriodSeconds, Uid: options.GetPreconditions().GetUid(), DryRun: req.GetDryRun(),
		Fence: req.GetFence(), Conditions: req.GetConditions(),
	}
	resp := &apiv1.EvictResponse{}
	_, err := s.write(deletion, func(t *transaction) (err error) {
		resp.Object, resp.Removed, err = t.delete(deletion)
		return err
	})
	return resp, err
}
