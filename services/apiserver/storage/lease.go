package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xebec-project/xebec/internal/renewal"
)

// leaseKey names the owner of a lease. It is attached to the lease itself and deleted with it.
func leaseKey(id int64) string { return leasePrefix + strconv.FormatInt(id, 16) }

// LeaseGrant creates a lease of ttl seconds that belongs to owner, and returns its id and the time
// to live granted, which etcd may have raised to its own minimum. The caller may choose the id, a
// random positive number; with 0 the store chooses it. A grant with the id and owner of an existing
// lease renews it: a caller that got no answer repeats the grant with the same id, and has one
// lease in the end. ErrLeaseTaken when the lease with this id belongs to another owner.
func (s *Store) LeaseGrant(ctx context.Context, id, ttl int64, owner string) (granted, ttlGranted int64, err error) {
	if id == 0 {
		id = renewal.NewID()
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	pauses := newBackoff()
	for {
		ttlGranted, err = s.grantOwned(ctx, id, ttl, owner)
		// It expired after it was found: start over.
		if !errors.Is(err, ErrLeaseNotFound) || pauses.Wait(ctx, err) != nil {
			break
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("grant lease: %w", err)
	}
	return id, ttlGranted, nil
}

// grantOwned creates a lease and records its owner, unless an earlier attempt did.
// ErrLeaseNotFound when the lease expired meanwhile.
func (s *Store) grantOwned(ctx context.Context, id, ttl int64, owner string) (int64, error) {
	leases := pb.NewLeaseClient(s.cli.ActiveConnection())
	lease, err := hedged(ctx, s.writes, func(ctx context.Context) (*pb.LeaseGrantResponse, error) {
		resp, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
		return resp, rpctypes.Error(err)
	})
	exists := errors.Is(err, rpctypes.ErrLeaseExist)
	switch {
	case exists:
		if err := s.checkUnused(ctx, id); err != nil {
			return 0, err
		}
	case err != nil:
		return 0, writeError(err)
	}
	// If this fails, the next attempt finds the lease, or the lease expires unused.
	key := leaseKey(id)
	resp, err := hedged(ctx, s.writes, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, owner, clientv3.WithLease(clientv3.LeaseID(id)))).
			Else(clientv3.OpGet(key)).
			Commit()
	})
	if err != nil {
		return 0, fmt.Errorf("record its owner: %w", writeError(err))
	}
	if !resp.Succeeded {
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); string(kvs[0].Value) != owner {
			return 0, ErrLeaseTaken
		}
	}
	if exists {
		// Its remaining time counts from an earlier request.
		return s.LeaseKeepAlive(ctx, id)
	}
	return lease.GetTTL(), nil
}

// checkUnused returns ErrLeaseTaken when a lease that exists has no recorded owner but other keys:
// it was not granted by this API, and an owner recorded for it would own these keys.
func (s *Store) checkUnused(ctx context.Context, id int64) error {
	resp, err := hedged(ctx, s.reads, func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return s.cli.TimeToLive(ctx, clientv3.LeaseID(id), clientv3.WithAttachedKeys())
	})
	if err != nil {
		return readError(err)
	}
	owned := slices.ContainsFunc(resp.Keys, func(key []byte) bool { return string(key) == leaseKey(id) })
	if len(resp.Keys) > 0 && !owned {
		return ErrLeaseTaken
	}
	return nil
}

// LeaseRevoke ends a lease and removes the objects under it; ErrLeaseNotFound when it is gone
// already.
func (s *Store) LeaseRevoke(ctx context.Context, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	leases := pb.NewLeaseClient(s.cli.ActiveConnection())
	var requests atomic.Int32
	_, err := hedged(ctx, s.writes, func(ctx context.Context) (*pb.LeaseRevokeResponse, error) {
		requests.Add(1)
		resp, err := leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
		return resp, rpctypes.Error(err)
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) && requests.Load() > 1 {
		return nil // by a request that was not answered
	}
	if err != nil {
		return fmt.Errorf("revoke lease: %w", writeError(err))
	}
	return nil
}

// LeaseOwner returns the owner of a lease; ErrLeaseNotFound when it is gone.
func (s *Store) LeaseOwner(ctx context.Context, id int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	resp, err := s.read(ctx, leaseKey(id))
	if err != nil {
		return "", fmt.Errorf("read owner of lease: %w", readError(err))
	}
	if len(resp.Kvs) == 0 {
		return "", ErrLeaseNotFound
	}
	return string(resp.Kvs[0].Value), nil
}
