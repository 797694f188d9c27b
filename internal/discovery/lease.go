package discovery

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// renewInterval leaves room for another attempt, at another member, before the lease lapses.
	renewInterval = 2 * time.Second
	// renewTimeout is how long one member gets to answer.
	renewTimeout = time.Second
)

// keepAlive renews a lease until it has lapsed, or until ctx ends. It holds one stream and wakes once per renewal;
// etcd's own lease client looks at its leases four times a second, which an idle control plane of many processes
// would feel.
func keepAlive(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) {
	leases := pb.NewLeaseClient(client.ActiveConnection())
	lapses := time.Now().Add(TTL * time.Second)
	var backoff backoff
	for ctx.Err() == nil && time.Now().Before(lapses) {
		renewed := renew(ctx, leases, lease, func(at time.Time, ttl time.Duration) {
			lapses = at.Add(ttl)
			backoff.reset()
		})
		if !renewed {
			return
		}
		backoff.wait(ctx)
	}
}

// renew renews a lease over one stream until the stream fails. It returns false when etcd says that the lease is gone.
func renew(ctx context.Context, leases pb.LeaseClient, lease clientv3.LeaseID, done func(at time.Time, ttl time.Duration)) bool {
	// A member that has lost its leader refuses at once, and one that hangs is given up by cancel.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	stream, err := leases.LeaseKeepAlive(ctx)
	if err != nil {
		return true
	}
	hangs := time.AfterFunc(renewTimeout, cancel)
	defer hangs.Stop()
	next := time.NewTimer(renewInterval)
	defer next.Stop()
	for {
		at := time.Now()
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease)}); err != nil {
			return true
		}
		resp, err := stream.Recv()
		if err != nil {
			return true
		}
		if resp.GetTTL() <= 0 {
			return false
		}
		hangs.Stop()
		done(at, time.Duration(resp.GetTTL())*time.Second)
		next.Reset(renewInterval)
		select {
		case <-next.C:
		case <-ctx.Done():
			return true
		}
		hangs.Reset(renewTimeout)
	}
}
