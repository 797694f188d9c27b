package apiserver

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// lossy loses the answers to the first grants: the server made them, and the client does not hear
// of it.
type lossy struct {
	grpc.ClientConnInterface
	left  atomic.Int32
	calls atomic.Int32
}

func (l *lossy) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := l.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	if method == apiv1.LeaseService_Grant_FullMethodName {
		l.calls.Add(1)
		if err == nil && l.left.Add(-1) >= 0 {
			return apierr.Unavailable("the answer was lost")
		}
	}
	return err
}

// TestGrantWhoseAnswerWasLost repeats grants, and expects one lease.
func TestGrantWhoseAnswerWasLost(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	conn := start(t, etcd)
	l := &lossy{ClientConnInterface: as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins}}
	l.left.Store(2)
	lease, err := client.KeepLease(t.Context(), client.New(l), 30*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l.calls.Load() != 3 {
		t.Errorf("%d calls", l.calls.Load())
	}
	resp, err := etcd.Client().Leases(t.Context())
	if err != nil || len(resp.Leases) != 1 || int64(resp.Leases[0].ID) != lease.ID() {
		t.Errorf("etcd's leases are %v, %v; want %x alone", resp.Leases, err, lease.ID())
	}
	if err := lease.Revoke(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestGrantByID(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	alice := apiv1.NewLeaseServiceClient(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	bob := apiv1.NewLeaseServiceClient(as{ClientConnInterface: conn, User: "bob", Group: authz.GroupAdmins})
	const id = 1 << 62
	for range 2 {
		granted, err := alice.Grant(ctx, &apiv1.GrantRequest{TtlSeconds: 30, LeaseId: id})
		if err != nil || granted.GetLeaseId() != id || granted.GetTtlSeconds() != 30 {
			t.Errorf("granted %v, %v", granted, err)
		}
	}
	if _, err := bob.Grant(ctx, &apiv1.GrantRequest{TtlSeconds: 30, LeaseId: id}); !apierr.IsAlreadyExists(err) {
		t.Errorf("another user's id: %v", err)
	}
	if _, err := alice.Grant(ctx, &apiv1.GrantRequest{TtlSeconds: 30, LeaseId: -1}); !apierr.IsBadRequest(err) && !apierr.IsInvalid(err) {
		t.Errorf("a negative id: %v", err)
	}
	// An older client leaves the choice to the server.
	first, err := bob.Grant(ctx, &apiv1.GrantRequest{TtlSeconds: 30})
	second, err2 := bob.Grant(ctx, &apiv1.GrantRequest{TtlSeconds: 30})
	if err := errors.Join(err, err2); err != nil || first.GetLeaseId() <= 0 || first.GetLeaseId() == second.GetLeaseId() {
		t.Errorf("chosen by the server: %v, %v, %v", first, second, err)
	}
}

// TestNodeLeasesOfLargeClusters are longer the more there are.
func TestNodeLeasesOfLargeClusters(t *testing.T) {
	for _, tt := range []struct {
		asked  int64
		leases int
		want   int64
	}{{10, 0, 10}, {10, 1000, 10}, {10, 1200, 12}, {10, 3000, 30}, {10, 5000, 40}, {60, 5000, 60}} {
		if got := nodeLeaseSeconds(tt.asked, tt.leases); got != tt.want {
			t.Errorf("%d s asked for among %d leases: %d s, want %d", tt.asked, tt.leases, got, tt.want)
		}
	}
}

func TestAdvisedTimeToLive(t *testing.T) {
	for _, tt := range []struct {
		ttl    int64
		leases int
		want   int64
	}{{10, 1000, 0}, {10, 2000, 20}, {10, 5000, 40}, {40, 9000, 0}, {60, 5000, 0}} {
		if got := advisedSeconds(tt.ttl, tt.leases); got != tt.want {
			t.Errorf("a lease of %d s among %d: advised %d s, want %d", tt.ttl, tt.leases, got, tt.want)
		}
	}
}

// TestMoveToAnotherLease moves an object between leases, each of which it vanishes with only while
// it is under it.
func TestMoveToAnotherLease(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	alice := client.New(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	node := client.New(as{ClientConnInterface: conn, User: "system:node:n", Group: "system:nodes"})
	waitNamespace(t, alice)
	lease := func(c *client.Client) *client.Lease {
		t.Helper()
		l, err := client.KeepLease(ctx, c, 30*time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first, second, foreign := lease(node), lease(node), lease(alice)
	object := &coordinationv1.Lease{Metadata: &metav1.ObjectMeta{Namespace: "kube-node-lease", Name: "n"}, Spec: &coordinationv1.LeaseSpec{}}
	object, err := client.Create(ctx, node, object, client.UnderLease(first.ID()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Update(ctx, node, client.Clone(object), client.UnderLease(foreign.ID())); !apierr.IsForbidden(err) {
		t.Errorf("to another caller's lease: %v", err)
	}
	moved := client.Clone(object)
	moved.Spec.LeaseDurationSeconds = proto.Int32(40)
	if _, err := client.Update(ctx, node, moved, client.UnderLease(second.ID())); err != nil {
		t.Fatal(err)
	}
	if err := first.Revoke(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := client.Get[*coordinationv1.Lease](ctx, node, "kube-node-lease", "n"); err != nil || got.GetSpec().GetLeaseDurationSeconds() != 40 {
		t.Errorf("after the first lease was revoked: %v, %v", got, err)
	}
	if err := second.Revoke(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get[*coordinationv1.Lease](ctx, node, "kube-node-lease", "n"); !apierr.IsNotFound(err) {
		t.Errorf("after the second lease was revoked: %v", err)
	}

	lasting, err := client.Create(ctx, alice, &coordinationv1.Lease{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "lasting"}, Spec: &coordinationv1.LeaseSpec{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Update(ctx, alice, lasting, client.UnderLease(foreign.ID())); !apierr.IsBadRequest(err) && !apierr.IsInvalid(err) {
		t.Errorf("an object under no lease: %v", err)
	}
}
