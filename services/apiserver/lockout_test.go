package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/allowlist"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/etcdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestLockout checks that an access list cannot lock out its writer or the nodes unless the call
// allows it.
func TestLockout(t *testing.T) {
	c := admin(start(t, etcdtest.New(t, 1)))
	waitNamespace(t, c)
	node := &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "node-1"}, Status: &corev1.NodeStatus{
		Addresses: []*corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.21"}, {Type: "Hostname", Address: "node-1"}}}}
	do[*corev1.Node](t)(client.Create(t.Context(), c, node))

	list := func(entries ...string) *gatewayv1.ListenerAccess {
		return &gatewayv1.ListenerAccess{AllowedCidrs: entries}
	}
	off := &gatewayv1.ListenerAccess{Enabled: proto.Bool(false)}
	for _, tt := range []struct {
		name             string
		source, listener string
		private, public  *gatewayv1.ListenerAccess
		force            bool
		want             string
	}{
		{"the caller in the list", "203.0.113.9", "public", list("10.0.0.0/24"), list("203.0.113.0/24"), false, ""},
		{"the caller not in the list", "198.51.100.1", "public", list("10.0.0.0/24"), list("203.0.113.0/24"), false, "your own connection from 198.51.100.1 to the public listener"},
		{"the caller's listener off", "198.51.100.1", "public", list("10.0.0.0/24"), off, false, "your own connection"},
		{"the caller forces it", "198.51.100.1", "public", list("10.0.0.0/24"), list("203.0.113.0/24"), true, ""},
		{"a list of the other listener", "198.51.100.1", "private", nil, list("203.0.113.0/24"), false, ""},
		{"a master", "", "", list("10.0.0.0/24"), list("203.0.113.0/24"), false, ""},
		{"the node not in the list", "10.9.0.1", "private", list("10.9.0.0/16"), nil, false, "nodes node-1 (10.0.0.21)"},
		{"the node in the other list", "10.9.0.1", "private", list("10.9.0.0/16"), list("10.0.0.0/24"), false, ""},
		{"the node's listener off", "203.0.113.9", "public", off, list("203.0.113.0/24"), false, "nodes node-1"},
		{"the node forced out", "10.9.0.1", "private", list("10.9.0.0/16"), nil, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := t.Context()
			if tt.source != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, edge.HeaderSource, tt.source, edge.HeaderListener, tt.listener)
			}
			if tt.force {
				ctx = metadata.AppendToOutgoingContext(ctx, allowlist.HeaderAllowLockout, "true")
			}
			access := &gatewayv1.GatewayAccess{Metadata: &metav1.ObjectMeta{Name: "cluster"}, Spec: &gatewayv1.GatewayAccessSpec{Private: tt.private, Public: tt.public}}
			_, err := client.Create(ctx, c, access, client.DryRun)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if apierr.Code(err) != codes.FailedPrecondition || apierr.Reason(err) != apierr.ReasonLockout || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a refusal with %q", err, tt.want)
			}
		})
	}
}
