package storage

import (
	"context"
	"fmt"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseKey names the owner of a lease. It is attached to the lease itself and vanishes with it.
func leaseKey(id int64) string { return leasePrefix + strconv.FormatInt(id, 16) }

// LeaseGrant makes a lease of ttl seconds that belongs to owner, and returns its id and the time to live granted,
// which etcd may have raised to its own least.
func (s *Store) LeaseGrant(ctx context.Context, ttl int64, owner string) (id, granted int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	lease, err := s.cli.Grant(ctx, ttl)
	if err != nil {
		return 0, 0, fmt.Errorf("grant lease: %w", writeError(err))
	}
	// Should this fail, the lease lapses unused.
	_, err = s.cli.Put(ctx, leaseKey(int64(lease.ID)), owner, clientv3.WithLease(lease.ID))
	if err != nil {
		return 0, 0, fmt.Errorf("record owner of lease: %w", writeError(err))
	}
	return int64(lease.ID), lease.TTL, nil
}

// LeaseRevoke ends a lease and removes the objects under it; ErrLeaseNotFound when it is gone already.
func (s *Store) LeaseRevoke(ctx context.Context, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	if _, err := s.cli.Revoke(ctx, clientv3.LeaseID(id)); err != nil {
		return fmt.Errorf("revoke lease: %w", writeError(err))
	}
	return nil
}

// LeaseOwner returns whom a lease was granted to; ErrLeaseNotFound when it is gone.
func (s *Store) LeaseOwner(ctx context.Context, id int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	resp, err := s.cli.Get(ctx, leaseKey(id))
	if err != nil {
		return "", fmt.Errorf("read owner of lease: %w", readError(err))
	}
	if len(resp.Kvs) == 0 {
		return "", ErrLeaseNotFound
	}
	return string(resp.Kvs[0].Value), nil
}
