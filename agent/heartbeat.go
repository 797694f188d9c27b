package agent

import (
	"context"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// heartbeatNamespace holds a Lease object for each node that lives.
const heartbeatNamespace = "kube-node-lease"

// Heartbeat keeps a Lease object of the node's name for as long as ctx lives: the object is tied to a lease of the given
// time to live, and vanishes when nobody renews that. A heartbeat writes nothing to disk.
func Heartbeat(ctx context.Context, c *client.Client, node string, ttl time.Duration, log *zap.Logger) error {
	retry := 50 * time.Millisecond
	for {
		lost, err := beat(ctx, c, node, ttl)
		if err == nil {
			retry = 50 * time.Millisecond
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-lost:
				log.Warn("The node's lease was lost, it is taken anew")
				continue
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("The node's lease could not be taken", zap.Error(err), zap.Duration("retryIn", retry))
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		retry = min(2*retry, 2*time.Second)
	}
}

// beat takes a lease and creates the object under it. The channel closes when the lease is lost.
func beat(ctx context.Context, c *client.Client, node string, ttl time.Duration) (<-chan struct{}, error) {
	lease, err := client.KeepLease(ctx, c, ttl, nil)
	if err != nil {
		return nil, err
	}
	object := &coordinationv1.Lease{
		Metadata: &metav1.ObjectMeta{Name: node, Namespace: heartbeatNamespace},
		Spec: &coordinationv1.LeaseSpec{
			HolderIdentity: proto.String(node), LeaseDurationSeconds: proto.Int32(int32(lease.TTL() / time.Second)), AcquireTime: timestamppb.Now(),
		},
	}
	_, err = client.Create(ctx, c, object, client.UnderLease(lease.ID()))
	if apierr.IsAlreadyExists(err) {
		// An agent before this one left it, under a lease that nobody renews any more.
		if _, err = client.Delete[*coordinationv1.Lease](ctx, c, heartbeatNamespace, node); err == nil || apierr.IsNotFound(err) {
			_, err = client.Create(ctx, c, object, client.UnderLease(lease.ID()))
		}
	}
	if err != nil {
		revoke, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = lease.Revoke(revoke)
		return nil, err
	}
	return lease.Done(), nil
}
