package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// heartbeatNamespace holds a Lease object for each node that lives.
const heartbeatNamespace = "kube-node-lease"

// Heartbeat keeps a Lease object with the node's name until ctx ends: the object is attached to an
// etcd lease of the given time to live, and disappears when that expires. A heartbeat writes
// nothing to disk.
func Heartbeat(ctx context.Context, c *client.Client, node string, ttl time.Duration, log *zap.Logger) error {
	return heartbeat{client: c, node: node, ttl: ttl, log: log}.run(ctx)
}

// heartbeat keeps the lease of a node.
type heartbeat struct {
	client *client.Client
	node   string
	ttl    time.Duration
	log    *zap.Logger
	// keep is the file that the lease's number is written to, so that the next agent goes on with the
	// same lease and the node is never missed. Empty: it is not.
	keep string
}

// keptLease is where the number of the node's lease is kept.
func keptLease(stateDir string) string { return filepath.Join(stateDir, "lease") }

// heartbeatMin and heartbeatMax are the limits of the pause before a lease is taken again, which is
// longer when the server asks for more.
const (
	heartbeatMin = 250 * time.Millisecond
	heartbeatMax = 5 * time.Second
	// heartbeatLost bounds the pause after a lease that was lost soon after it was taken, in less than
	// heartbeatKept: the control plane cannot keep up with the leases that there are, and nodes that
	// come back at once would take what others need.
	heartbeatLost = 30 * time.Second
	heartbeatKept = time.Minute
)

func (h heartbeat) run(ctx context.Context) error {
	pace := backoff.Backoff{Min: heartbeatMin, Max: heartbeatMax}
	losses := backoff.Backoff{Min: heartbeatMin, Max: heartbeatLost}
	var pending *client.Lease
	for {
		kept, err := h.beat(ctx, pending)
		pending = nil
		if err == nil {
			pace.Reset()
			taken := time.Now()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-kept.Done():
			}
			if time.Since(taken) >= heartbeatKept {
				losses.Reset()
			}
			// An outage loses the leases of all nodes at once: they come back one by one.
			pause := losses.Next(nil)
			h.log.Warn("Lease lost, acquiring a new one", zap.NamedError(metrics.KeyReason, kept.Err()), zap.Duration(metrics.KeyRetryIn, pause))
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
		h.log.Warn("Failed to acquire the lease", zap.Error(err), zap.Duration(metrics.KeyRetryIn, pause))
		if err := backoff.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// beat makes the object and keeps its lease. When the object cannot be made it returns the lease,
// which is kept all the same, along with the error, for the next call: a lease granted for each
// attempt would burden a server that is overloaded already. pending is what the call before
// returned in that case, nil for none.
func (h heartbeat) beat(ctx context.Context, pending *client.Lease) (*client.Lease, error) {
	lease := pending
	if lease != nil && lease.Err() != nil {
		lease = nil
	}
	if lease == nil {
		adopted, err := h.adopt(ctx)
		if adopted != nil || err != nil {
			return adopted, err
		}
		if lease, err = client.KeepLease(ctx, h.client, h.ttl, nil); err != nil {
			return nil, err
		}
	}
	err := h.create(ctx, lease)
	if apierr.IsAlreadyExists(err) {
		err = h.replace(ctx, lease)
	}
	if err != nil {
		return lease, err
	}
	if h.keep != "" {
		if err := os.WriteFile(h.keep, []byte(strconv.FormatInt(lease.ID(), 10)), 0o600); err != nil {
			h.log.Warn("Failed to store the lease id", zap.Error(err))
		}
	}
	return lease, nil
}

// replace creates the object in place of an existing one, unless that is attached to the lease
// already: an earlier attempt created it and the response was lost. Another lease is not renewed by
// any known process.
func (h heartbeat) replace(ctx context.Context, lease *client.Lease) error {
	object, err := client.Get[*coordinationv1.Lease](ctx, h.client, heartbeatNamespace, h.node)
	if err == nil {
		if standsUnder(object, lease) {
			return nil
		}
		_, err = client.Delete[*coordinationv1.Lease](ctx, h.client, heartbeatNamespace, h.node, client.IfUID(object.GetMetadata().GetUid()))
	}
	if err != nil && !apierr.IsNotFound(err) {
		return err
	}
	return h.create(ctx, lease)
}

func standsUnder(object *coordinationv1.Lease, lease *client.Lease) bool {
	return object.GetMetadata().GetAnnotations()[annotationLease] == strconv.FormatInt(lease.ID(), 10)
}

// adopt goes on with the lease that was written down. It returns nil when there is none to go on
// with, and the lease along with the error when its object cannot be made.
func (h heartbeat) adopt(ctx context.Context) (*client.Lease, error) {
	if h.keep == "" {
		return nil, nil
	}
	text, err := os.ReadFile(h.keep)
	if err != nil {
		return nil, nil
	}
	id, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || id <= 0 {
		return nil, nil
	}
	lease, err := client.AdoptLease(ctx, h.client, id, nil)
	if errors.Is(err, client.ErrLeaseLost) || apierr.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	object, err := client.Get[*coordinationv1.Lease](ctx, h.client, heartbeatNamespace, h.node)
	switch {
	case apierr.IsNotFound(err):
		// A user deleted it: it is created again with the same lease.
		return lease, h.create(ctx, lease)
	case err != nil:
		return lease, err
	case standsUnder(object, lease) && lease.TTL() >= h.ttl.Truncate(time.Second):
		return lease, nil
	}
	// The object belongs to another lease, or the configuration asks for another time to live.
	h.revoke(ctx, lease)
	return nil, nil
}

// annotationLease tells which etcd lease the object stands under.
const annotationLease = "xebec.io/lease"

func (h heartbeat) create(ctx context.Context, lease *client.Lease) error {
	_, err := client.Create(ctx, h.client, &coordinationv1.Lease{
		Metadata: &metav1.ObjectMeta{
			Name: h.node, Namespace: heartbeatNamespace,
			Annotations: map[string]string{annotationLease: strconv.FormatInt(lease.ID(), 10)},
		},
		Spec: &coordinationv1.LeaseSpec{
			HolderIdentity: proto.String(
				h.node,
			), LeaseDurationSeconds: proto.Int32(int32(lease.TTL() / time.Second)), AcquireTime: timestamppb.Now(),
		},
	}, client.UnderLease(lease.ID()))
	return err
}

func (h heartbeat) revoke(ctx context.Context, lease *client.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = lease.Revoke(ctx)
}
