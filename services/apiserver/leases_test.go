package apiserver

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// lossy loses the answers to the first grants: the server made them, and the client does not hear of it.
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
