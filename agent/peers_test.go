package agent

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/agent/server"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// at is a node whose agent listens at an address.
func at(name, address string) *corev1.Node {
	a := netip.MustParseAddrPort(address)
	return &corev1.Node{Metadata: &metav1.ObjectMeta{Name: name}, Status: &corev1.NodeStatus{
		Addresses:       []*corev1.NodeAddress{{Type: "InternalIP", Address: a.Addr().String()}},
		DaemonEndpoints: &corev1.NodeDaemonEndpoints{KubeletEndpoint: &corev1.DaemonEndpoint{Port: int32(a.Port())}},
	}}
}

// TestReach asks an agent whether it reaches others, of which one answers and one, that is paused,
// does not.
func TestReach(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	agentTLS := func(name string) *pki.Source {
		return cluster.Source(t, pki.NodeRequest(name, net.IPv4(127, 0, 0, 1)))
	}
	well, _ := cluster.Serve(t, rpc.ServerConfig{TLS: agentTLS("well"), Authorize: server.Authorize}, func(grpc.ServiceRegistrar) {})
	paused, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, and that is all
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = paused.Close() })
	api, c := clienttest.Start(t)
	clienttest.Seed(api, at("well", well), at("paused", paused.Addr().String()), at("another", well), &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "new"}})
	nodes := client.NewInformer(c, client.InformerOptions[*corev1.Node]{})
	go func() { _ = nodes.Run(t.Context()) }()
	if err := nodes.WaitForSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	address, _ := cluster.Serve(t, rpc.ServerConfig{TLS: agentTLS("asked"), Authorize: server.Authorize}, func(r grpc.ServiceRegistrar) {
		nodev1.RegisterReachabilityServiceServer(r, &peers{tls: agentTLS("asked"), nodes: nodes})
	})
	as := func(tls *pki.Source) nodev1.ReachabilityServiceClient {
		return nodev1.NewReachabilityServiceClient(cluster.Dial(t, address, tls, rpc.ClientConfig{ServerUser: pki.NodeUser("asked")}))
	}
	service := as(cluster.Service(t, "nodes"))
	for _, tt := range []struct {
		node    string
		limit   time.Duration
		answers bool
		code    codes.Code
	}{
		{"well", time.Minute, true, codes.OK},
		{"paused", 3 * time.Second, false, codes.OK},
		{"another", 3 * time.Second, false, codes.OK}, // another node has its address
		{"new", time.Minute, false, codes.NotFound},
		{"unknown", time.Minute, false, codes.NotFound},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
		resp, err := service.Reach(ctx, &nodev1.ReachRequest{Node: tt.node})
		cancel()
		if status.Code(err) != tt.code || resp.GetAnswers() != tt.answers || err == nil && !tt.answers && resp.GetProblem() == "" {
			t.Errorf("%s: %v, %v; want answers %t, %s", tt.node, resp, err, tt.answers, tt.code)
		}
	}
	for name, tls := range map[string]*pki.Source{
		"another service": cluster.Service(t, "workloads"), "the gateway": cluster.Service(t, "gateway"), "a node": agentTLS("well"), "an administrator": cluster.Admin(t),
	} {
		if _, err := as(tls).Reach(t.Context(), &nodev1.ReachRequest{Node: "well"}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, want PermissionDenied", name, err)
		}
	}
}
