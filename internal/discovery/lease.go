package discovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xebec-project/xebec/internal/renewal"
)

// renewPatience is how long one member gets at least to answer.
const renewPatience = time.Second

// lease is the lease of a registration. Its id is chosen here and stays the same: however many
// requests for it are not answered, etcd has one lease of this instance at most.
type lease struct {
	client *clientv3.Client
	rpc    pb.LeaseClient
	id     int64
	ttl    time.Duration
	// granted says whether etcd may have the lease.
	granted bool
}

func newLease(client *clientv3.Client, ttl time.Duration) *lease {
	// etcd's own client cannot ask for a lease by its id.
	return &lease{client: client, rpc: pb.NewLeaseClient(client.ActiveConnection()), id: renewal.NewID(), ttl: ttl}
}

// grant makes the lease, unless there is one left of an earlier attempt.
func (l *lease) grant(ctx context.Context) (existed bool, err error) {
	l.granted = true
	_, err = l.rpc.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: l.id, TTL: int64(l.ttl / time.Second)})
	if err = rpctypes.Error(err); errors.Is(err, rpctypes.ErrLeaseExist) {
		return true, nil
	}
	return false, err
}

// keepAlive renews the lease until it has lapsed, and returns why, or until ctx ends. It holds one
// stream while etcd is quick and wakes once per renewal; etcd's own lease client looks at its
// leases four times a second, which an idle control plane of many processes would feel. sent is
// when the lease was asked for, zero when it is an older one. answered gets the time that each
// answer took.
func (l *lease) keepAlive(ctx context.Context, sent time.Time, answered func(took time.Duration)) error {
	// It leaves room for another attempt, at another member, before the lease lapses.
	interval := l.ttl * 2 / 5
	due := sent.Add(interval)
	if sent.IsZero() {
		// It may have little time left.
		sent = time.Now()
		due = sent
	}
	err := renewal.Keep(ctx, renewal.Lease{
		Deadline: sent.Add(l.ttl), Due: due, Interval: interval, Patience: renewPatience, Open: l.open,
		Renewed: func(deadline time.Time) { answered(l.ttl - time.Until(deadline)) },
	})
	if errors.Is(err, renewal.ErrGone) {
		l.granted = false
	}
	return err
}

// open opens a stream of renewals.
func (l *lease) open(ctx context.Context) (renewal.Renew, error) {
	// A member that has lost its leader refuses at once.
	stream, err := l.rpc.LeaseKeepAlive(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return nil, err
	}
	return func() (time.Duration, error) {
		// A failed Send says only that the stream ended: Recv says why.
		_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: l.id})
		resp, err := stream.Recv()
		if err == nil && resp.GetTTL() <= 0 {
			err = fmt.Errorf("lease %x: %w", l.id, renewal.ErrGone)
		}
		return time.Duration(resp.GetTTL()) * time.Second, err
	}, nil
}

// revoke gives the lease up soon rather than by waiting; failing that, it lapses.
func (l *lease) revoke(ctx context.Context) {
	if !l.granted {
		return
	}
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = l.client.Revoke(short, clientv3.LeaseID(l.id))
}
