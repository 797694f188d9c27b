package coordination_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

func TestLease(t *testing.T) {
	lease := func() *coordinationv1.Lease {
		return &coordinationv1.Lease{Metadata: kindtest.Meta("scheduler"), Spec: &coordinationv1.LeaseSpec{HolderIdentity: proto.String("scheduler@m1")}}
	}
	kindtest.Validate(t, lease, []kindtest.Bad[*coordinationv1.Lease]{
		{Name: "no spec", Edit: func(l *coordinationv1.Lease) { l.Spec = nil }, Want: nil},
		{Name: "numbers", Edit: func(l *coordinationv1.Lease) {
			l.Spec.LeaseDurationSeconds, l.Spec.LeaseTransitions = proto.Int32(0), proto.Int32(-1)
		}, Want: []string{"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0", "spec.leaseTransitions: Invalid value: -1"}},
	})
	kindtest.ExpectCells(t, lease(), kindtest.Now, map[string]string{"HOLDER": "scheduler@m1"})
}
