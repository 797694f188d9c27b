package rpc_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// TestManyNodesConnectAtOnce connects many nodes from one address, of which few may authenticate at
// a time and strangers may hardly connect: all get in.
func TestManyNodesConnectAtOnce(t *testing.T) {
	const nodes = 150
	cluster, registry := rpctest.NewCluster(t), prometheus.NewRegistry()
	address, _ := cluster.Serve(t, rpc.ServerConfig{
		Metrics: registry, DrainLimit: 50 * time.Millisecond,
		Authorize: func(context.Context, edge.Identity, string) error { return nil },
		Edge:      edge.Limits{PendingConnectionsPerSource: 8, ConnectionsPerSecond: 0.001, ConnectionsBurst: 50, WaitTimeout: time.Minute},
	}, (&testAPI{}).register)
	var all sync.WaitGroup
	for i := range nodes {
		conn := cluster.Dial(t, address, cluster.Source(t, pki.NodeRequest(fmt.Sprint("node-", i))), rpc.ClientConfig{})
		all.Go(func() {
			who, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}, grpc.WaitForReady(true))
			if err != nil {
				t.Errorf("node %d: %v, %v", i, who, err)
			}
		})
	}
	all.Wait()
	// Where client and server share a machine that is very busy, a client may be silent for long
	// enough to make room.
	if closed := metricstest.Values(t, registry, metrics.RPCConnectionsClosed); closed[edge.ClosedRate] > 0 || closed[edge.ClosedPending] > nodes/10 {
		t.Errorf("connections were refused or closed: %v", closed)
	}
	// A client that gave up a handshake which the server had completed has two connections until the
	// server reads the end of the first.
	for name, want := range map[string]float64{
		metrics.RPCConnections: nodes, metrics.RPCCallers: nodes, metrics.RPCPendingConnections: 0, metrics.RPCWaitingConnections: 0,
	} {
		await(t, fmt.Sprintf("%s is %v", name, want), func() bool { return metricstest.Values(t, registry, name)[""] == want })
	}
}

// TestClientsThatGiveUpWaiting has a client close its connection before its turn: that is not held
// against its address.
func TestClientsThatGiveUpWaiting(t *testing.T) {
	cluster, registry := rpctest.NewCluster(t), prometheus.NewRegistry()
	address, _ := cluster.Serve(t, rpc.ServerConfig{
		Metrics: registry, DrainLimit: 50 * time.Millisecond,
		Edge: edge.Limits{PendingConnectionsPerSource: 1, HandshakeTimeout: time.Minute, ConnectionsPerSecond: 0.001, ConnectionsBurst: 2, WaitTimeout: time.Minute},
	}, (&testAPI{}).register)
	gauge := func(name string) float64 { return metricstest.Values(t, registry, name)[""] }
	connect := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	silent := connect()
	await(t, "the first connection authenticates", func() bool { return gauge(metrics.RPCPendingConnections) == 1 })
	waiting := connect()
	await(t, "the second waits", func() bool { return gauge(metrics.RPCWaitingConnections) == 1 })
	if err := waiting.Close(); err != nil {
		t.Fatal(err)
	}
	_ = silent.Close()
	await(t, "both are gone", func() bool {
		return gauge(metrics.RPCPendingConnections)+gauge(metrics.RPCWaitingConnections) == 0
	})
	// The burst was 2, and the silent one had one of it.
	admin := clusterv1.NewClusterServiceClient(cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{}))
	if _, err := admin.WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}); err != nil {
		t.Error(err)
	}
}
