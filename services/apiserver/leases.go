package apiserver

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Bounds of a lease's time to live, in seconds.
const (
	minLeaseSeconds = 2
	maxLeaseSeconds = 3600
)

// The more nodes there are, the longer their leases live, so that all nodes together make at most
// nodeRenewalsPerSecond renewals when each renews three times in the time to live of its lease:
// 1,000 nodes with leases of 10 s do. A failed node is noticed after at most 40 s, as in
// Kubernetes.
const (
	nodeRenewalsPerSecond = 300
	maxNodeLeaseSeconds   = 40
)

// nodeLeaseSeconds returns the time to live that the lease of a node is granted, from the requested
// one and the number of leases.
func nodeLeaseSeconds(asked int64, leases int) int64 {
	return max(asked, min(3*int64(leases)/nodeRenewalsPerSecond, maxNodeLeaseSeconds))
}

// advisedSeconds returns the time to live that a node's lease of ttl seconds would be granted now,
// from the number of leases, or 0 when that is not longer.
func advisedSeconds(ttl int64, leases int) int64 {
	if advised := nodeLeaseSeconds(ttl, leases); advised > ttl {
		return advised
	}
	return 0
}

// leaseService implements LeaseService on etcd's leases.
type leaseService struct {
	apiv1.UnimplementedLeaseServiceServer
	store *storage.Store
}

// Grant makes a lease owned by the caller, or renews the one that the caller was granted under the
// same id.
func (l *leaseService) Grant(ctx context.Context, req *apiv1.GrantRequest) (*apiv1.GrantResponse, error) {
	if ttl := req.GetTtlSeconds(); ttl < minLeaseSeconds || ttl > maxLeaseSeconds {
		return nil, apierr.BadField("ttlSeconds", "must be %d to %d, is %d", minLeaseSeconds, maxLeaseSeconds, ttl)
	}
	if id := req.GetLeaseId(); id < 0 {
		return nil, apierr.BadField("leaseId", "must be a random positive number, or 0 for the server to choose, is %d", id)
	}
	seconds := req.GetTtlSeconds()
	if _, node := callerOf(ctx).Node(); node {
		seconds = nodeLeaseSeconds(seconds, l.store.CountCached("coordination.k8s.io", "Lease"))
	}
	id, ttl, err := l.store.LeaseGrant(ctx, req.GetLeaseId(), seconds, callerOf(ctx).User)
	if err != nil {
		return nil, storage.APIError(err)
	}
	return &apiv1.GrantResponse{LeaseId: id, TtlSeconds: ttl}, nil
}

// KeepAlive renews leases, once per request.
func (l *leaseService) KeepAlive(stream grpc.BidiStreamingServer[apiv1.KeepAliveRequest, apiv1.KeepAliveResponse]) error {
	ctx := stream.Context()
	_, node := callerOf(ctx).Node()
	owned := map[int64]bool{}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		id := req.GetLeaseId()
		if !owned[id] {
			if err := l.checkOwner(ctx, id); err != nil {
				return err
			}
			owned[id] = true
		}
		ttl, err := l.store.LeaseKeepAlive(ctx, id)
		if err != nil {
			return storage.APIError(err)
		}
		resp := &apiv1.KeepAliveResponse{LeaseId: id, TtlSeconds: ttl}
		if node {
			resp.AdvisedTtlSeconds = advisedSeconds(ttl, l.store.CountCached("coordination.k8s.io", "Lease"))
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// Revoke ends a lease and removes the objects under it.
func (l *leaseService) Revoke(ctx context.Context, req *apiv1.RevokeRequest) (*apiv1.RevokeResponse, error) {
	if err := l.checkOwner(ctx, req.GetLeaseId()); err != nil {
		return nil, err
	}
	if err := l.store.LeaseRevoke(ctx, req.GetLeaseId()); err != nil {
		return nil, storage.APIError(err)
	}
	return &apiv1.RevokeResponse{}, nil
}

// checkOwner refuses a caller that did not make the lease.
func (l *leaseService) checkOwner(ctx context.Context, id int64) error {
	if id <= 0 {
		return apierr.BadField("leaseId", "is required")
	}
	owner, err := l.store.LeaseOwner(ctx, id)
	if err != nil {
		return storage.APIError(err)
	}
	if caller := callerOf(ctx); owner != caller.User && !caller.In(authz.GroupAdmins) {
		return apierr.Denied("lease %d was granted to another user than %q", id, caller.User)
	}
	return nil
}

// checkLease refuses to put an object under a lease that is not the caller's; 0 is none.
func (s *Service) checkLease(ctx context.Context, id int64) error {
	if id == 0 {
		return nil
	}
	return s.leases.checkOwner(ctx, id)
}
