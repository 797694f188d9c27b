package registration

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/retry"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// leaseNamespace is the namespace of the Lease objects of nodes.
const leaseNamespace = "kube-node-lease"

// Lease keeps a Lease object with the node's name, which is attached to an etcd lease and
// disappears when that expires. Renewals write nothing to disk.
type Lease struct {
	Client *client.Client
	Node   string
	// TTL is the time to live of the etcd lease.
	TTL time.Duration
	// File stores the number of the etcd lease, so that the next agent continues it without a gap.
	// Empty: the number is not stored.
	File string
	Log  *zap.Logger
}

// leaseRetryMin and leaseRetryMax are the limits of the pause before a lease is taken again, which
// is longer when the server asks for more.
const (
	leaseRetryMin = 250 * time.Millisecond
	leaseRetryMax = 5 * time.Second
	// lossRetryMax bounds the pause after a lease that was lost soon after it was taken, in less than
	// leaseStable: the control plane cannot keep up with the leases that there are, and nodes that
	// come back at once would take what others need.
	lossRetryMax = 30 * time.Second
	leaseStable  = time.Minute
)

// Run keeps the lease until ctx ends, and returns ctx's error. It repeats by itself what fails.
func (l Lease) Run(ctx context.Context) error {
	ctx = retry.ByCaller(ctx)
	pace := backoff.Backoff{Min: leaseRetryMin, Max: leaseRetryMax}
	losses := backoff.Backoff{Min: leaseRetryMin, Max: lossRetryMax}
	var pending *client.Lease
	for {
		kept, err := l.beat(ctx, pending)
		pending = nil
		if err == nil {
			pace.Reset()
			taken := time.Now()
			if kept, err = l.hold(ctx, kept); err != nil {
				return err
			}
			if time.Since(taken) >= leaseStable {
				losses.Reset()
			}
			// An outage loses the leases of all nodes at once: they come back one by one.
			pause := losses.Next(nil)
			l.Log.Warn("Lease lost, acquiring a new one", zap.NamedError(metrics.KeyReason, kept.Err()), zap.Duration(metrics.KeyRetryAfter, pause))
			if err := backoff.Sleep(ctx, pause); err != nil {
				return err
			}
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pending = kept
		pause := pace.Next(err)
		l.Log.Warn("Failed to acquire the lease", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, pause))
		if err := backoff.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// beat makes the object and keeps its lease. When the object cannot be made it returns the lease,
// which is kept all the same, along with the error, for the next call: a lease granted for each
// attempt would burden a server that is overloaded already. pending is what the call before
// returned in that case, nil for none.
func (l Lease) beat(ctx context.Context, pending *client.Lease) (*client.Lease, error) {
	lease := pending
	if lease != nil && lease.Err() != nil {
		lease = nil
	}
	if lease == nil {
		adopted, err := l.adopt(ctx)
		if adopted != nil || err != nil {
			return adopted, err
		}
		if lease, err = client.KeepLease(ctx, l.Client, l.TTL, nil); err != nil {
			return nil, err
		}
	}
	err := l.create(ctx, lease)
	if apierr.IsAlreadyExists(err) {
		err = l.replace(ctx, lease)
	}
	if err != nil {
		return lease, err
	}
	l.store(lease)
	return lease, nil
}

// replace creates the object in place of an existing one, unless that is attached to the lease
// already: an earlier attempt created it and the response was lost. Another lease is not renewed by
// any known process.
func (l Lease) replace(ctx context.Context, lease *client.Lease) error {
	object, err := client.Get[*coordinationv1.Lease](ctx, l.Client, leaseNamespace, l.Node)
	if err == nil {
		if standsUnder(object, lease) {
			return nil
		}
		_, err = client.Delete[*coordinationv1.Lease](ctx, l.Client, leaseNamespace, l.Node, client.IfUID(object.GetMetadata().GetUid()))
	}
	if err != nil && !apierr.IsNotFound(err) {
		return err
	}
	return l.create(ctx, lease)
}

// idText is the id of a lease as the annotation and the file have it.
func idText(lease *client.Lease) string { return strconv.FormatInt(lease.ID(), 10) }

func standsUnder(object *coordinationv1.Lease, lease *client.Lease) bool {
	return object.GetMetadata().GetAnnotations()[annotationLease] == idText(lease)
}

// adopt goes on with the lease that was written down. It returns nil when there is none to go on
// with, and the lease along with the error when its object cannot be made.
func (l Lease) adopt(ctx context.Context) (*client.Lease, error) {
	if l.File == "" {
		return nil, nil
	}
	text, err := os.ReadFile(l.File)
	if err != nil {
		return nil, nil //nolint:nilerr // no lease was kept
	}
	id, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || id <= 0 {
		return nil, nil //nolint:nilerr // no lease was kept
	}
	lease, err := client.AdoptLease(ctx, l.Client, id, nil)
	if errors.Is(err, client.ErrLeaseLost) || apierr.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	object, err := client.Get[*coordinationv1.Lease](ctx, l.Client, leaseNamespace, l.Node)
	switch {
	case apierr.IsNotFound(err):
		// A user deleted it: it is created again with the same lease.
		return lease, l.create(ctx, lease)
	case err != nil:
		return lease, err
	case standsUnder(object, lease) && lease.TTL() >= l.TTL.Truncate(time.Second):
		return lease, nil
	}
	// The object belongs to another lease, or the configuration asks for another time to live.
	l.revoke(ctx, lease)
	return nil, nil
}

// annotationLease tells which etcd lease the object stands under.
const annotationLease = "xebec.io/lease"

func (l Lease) create(ctx context.Context, lease *client.Lease) error {
	_, err := client.Create(ctx, l.Client, &coordinationv1.Lease{
		Metadata: &metav1.ObjectMeta{
			Name: l.Node, Namespace: leaseNamespace,
			Annotations: map[string]string{annotationLease: idText(lease)},
		},
		Spec: &coordinationv1.LeaseSpec{
			HolderIdentity: proto.String(l.Node), AcquireTime: timestamppb.Now(),
			LeaseDurationSeconds: proto.Int32(int32(lease.TTL() / time.Second)),
		},
	}, client.UnderLease(lease.ID()))
	return err
}

// store writes the id of the lease to the file that the next agent reads.
func (l Lease) store(lease *client.Lease) {
	if l.File == "" {
		return
	}
	if err := os.WriteFile(l.File, []byte(idText(lease)), 0o600); err != nil {
		l.Log.Warn("Failed to store the lease id", zap.Error(err))
	}
}

func (l Lease) revoke(ctx context.Context, lease *client.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = lease.Revoke(ctx)
}
