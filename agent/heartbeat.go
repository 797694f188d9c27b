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
	"github.com/xebec-project/xebec/internal/client"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// heartbeatNamespace holds a Lease object for each node that lives.
const heartbeatNamespace = "kube-node-lease"

// Heartbeat keeps a Lease object of the node's name for as long as ctx lives: the object is tied to a lease of the given
// time to live, and vanishes when nobody renews that. A heartbeat writes nothing to disk.
func Heartbeat(ctx context.Context, c *client.Client, node string, ttl time.Duration, log *zap.Logger) error {
	return heartbeat{client: c, node: node, ttl: ttl, log: log}.run(ctx)
}

// heartbeat is a node's sign of life.
type heartbeat struct {
	client *client.Client
	node   string
	ttl    time.Duration
	log    *zap.Logger
	// keep is the file that the lease's number is written to, so that the next agent goes on with the same lease and the
	// node is never missed. Empty: it is not.
	keep string
}

// keptLease is where the number of the node's lease is kept.
func keptLease(stateDir string) string { return filepath.Join(stateDir, "lease") }

func (h heartbeat) run(ctx context.Context) error {
	retry := 50 * time.Millisecond
	for {
		lost, err := h.beat(ctx)
		if err == nil {
			retry = 50 * time.Millisecond
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-lost:
				h.log.Warn("The node's lease was lost, it is taken anew")
				continue
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h.log.Warn("The node's lease could not be taken", zap.Error(err), zap.Duration("retryIn", retry))
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

// beat makes the object and keeps its lease. The channel closes when the lease is lost.
func (h heartbeat) beat(ctx context.Context) (<-chan struct{}, error) {
	if lost, err := h.adopt(ctx); lost != nil || err != nil {
		return lost, err
	}
	lease, err := client.KeepLease(ctx, h.client, h.ttl, nil)
	if err != nil {
		return nil, err
	}
	if err = h.create(ctx, lease); apierr.IsAlreadyExists(err) {
		// It stands under a lease that nobody is known to renew.
		_, err = client.Delete[*coordinationv1.Lease](ctx, h.client, heartbeatNamespace, h.node)
		if err == nil || apierr.IsNotFound(err) {
			err = h.create(ctx, lease)
		}
	}
	if err != nil {
		h.revoke(ctx, lease)
		return nil, err
	}
	if h.keep != "" {
		if err := os.WriteFile(h.keep, []byte(strconv.FormatInt(lease.ID(), 10)), 0o600); err != nil {
			h.log.Warn("The node's lease could not be written down for the next agent", zap.Error(err))
		}
	}
	return lease.Done(), nil
}

// adopt goes on with the lease that was written down. It returns nil when there is none to go on with.
func (h heartbeat) adopt(ctx context.Context) (<-chan struct{}, error) {
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
		// Somebody deleted it: it comes back under the same lease.
		if err := h.create(ctx, lease); err != nil {
			h.revoke(ctx, lease)
			return nil, err
		}
		return lease.Done(), nil
	case err != nil:
		return nil, err
	case object.GetMetadata().GetAnnotations()[annotationLease] == strconv.FormatInt(id, 10) && lease.TTL() == h.ttl.Truncate(time.Second):
		return lease.Done(), nil
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
			HolderIdentity: proto.String(h.node), LeaseDurationSeconds: proto.Int32(int32(lease.TTL() / time.Second)), AcquireTime: timestamppb.Now(),
		},
	}, client.UnderLease(lease.ID()))
	return err
}

func (h heartbeat) revoke(ctx context.Context, lease *client.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = lease.Revoke(ctx)
}
