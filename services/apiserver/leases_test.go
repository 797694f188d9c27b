package apiserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/etcdtest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/authz"
)

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
