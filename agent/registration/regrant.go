package registration

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

// regrantPause is the least time until a lease that the server advises to replace is replaced, and
// the time over which nodes spread: a growing cluster advises many nodes at once, and more than
// once.
const regrantPause = 30 * time.Second

// hold returns the lease that the object is under when that is lost, or ctx's error. Meanwhile it
// replaces a lease when the server advises a much longer time to live.
func (l Lease) hold(ctx context.Context, lease *client.Lease) (*client.Lease, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-lease.Done():
			return lease, nil
		case <-lease.Outgrown():
		}
		pause := time.NewTimer(regrantPause + rand.N(regrantPause))
		select {
		case <-ctx.Done():
		case <-lease.Done():
		case <-pause.C:
			lease = l.regrant(ctx, lease)
		}
		pause.Stop()
	}
}

// regrant takes another lease, moves the object to it and revokes the old one. It returns the lease
// that counts from now on.
func (l Lease) regrant(ctx context.Context, old *client.Lease) *client.Lease {
	lease, err := client.KeepLease(ctx, l.Client, l.TTL, nil)
	if err != nil {
		l.Log.Warn("Failed to replace the lease by a longer one", zap.Error(err))
		return old
	}
	pauses := backoff.Backoff{Min: leaseRetryMin, Max: leaseRetryMax}
	for {
		if err = l.move(ctx, lease); err == nil || pauses.Wait(ctx, err) != nil || lease.Err() != nil || old.Err() != nil {
			break
		}
	}
	if err == nil {
		l.store(lease)
		l.Log.Info("Replaced the lease by a longer one", zap.Duration(metrics.KeyTTL, lease.TTL()))
	}
	// Without an answer it is not known which lease the object is under: with the new one it is made
	// again when that is lost.
	l.revoke(ctx, old)
	return lease
}

// move puts the object under a lease.
func (l Lease) move(ctx context.Context, lease *client.Lease) error {
	object, err := client.Get[*coordinationv1.Lease](ctx, l.Client, leaseNamespace, l.Node)
	switch {
	case apierr.IsNotFound(err):
		return l.create(ctx, lease)
	case err != nil:
		return err
	case standsUnder(object, lease):
		return nil
	}
	object = client.Clone(object)
	if object.Metadata.Annotations == nil {
		object.Metadata.Annotations = map[string]string{}
	}
	object.Metadata.Annotations[annotationLease] = idText(lease)
	object.Spec.LeaseDurationSeconds = proto.Int32(int32(lease.TTL() / time.Second))
	_, err = client.Update(ctx, l.Client, object, client.UnderLease(lease.ID()))
	return err
}
