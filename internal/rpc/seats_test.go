package rpc_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

func everyone(context.Context, edge.Identity, string) error { return nil }

// slowForNodes answers people at once, and nodes when release is closed.
func slowForNodes(release <-chan struct{}) *testAPI {
	return &testAPI{get: func(ctx context.Context, _ *apiv1.GetRequest) (*apiv1.GetResponse, error) {
		if edge.IdentityFromContext(ctx).Member(pki.GroupNodes) {
			<-release
		}
		return &apiv1.GetResponse{}, nil
	}}
}

// TestPeopleDoNotWaitForNodes makes 200 slow calls of one node at once: those above its queue are
// refused, people are answered, and the server's health stays as it is.
func TestPeopleDoNotWaitForNodes(t *testing.T) {
	cluster, registry := rpctest.NewCluster(t), prometheus.NewRegistry()
	release := make(chan struct{})
	end := sync.OnceFunc(func() { close(release) })
	defer end()
	address, _ := cluster.Serve(t, rpc.ServerConfig{
		Authorize: everyone, Metrics: registry,
		Fairness: fairness.Config{Seats: 20, Queues: fairness.Queues{PerCaller: 50, MaxWait: time.Minute}},
	}, slowForNodes(release).register)
	node := apiv1.NewResourceServiceClient(cluster.Dial(t, address, cluster.Source(t, pki.NodeRequest("node-1")), rpc.ClientConfig{}))
	conn := cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{})
	person, health := apiv1.NewResourceServiceClient(conn), healthpb.NewHealthClient(conn)
	ctx := testContext(t)
	watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}

	var calls sync.WaitGroup
	var answered, refused atomic.Int32
	for range 200 {
		calls.Go(func() {
			_, err := node.Get(retry.ByCaller(ctx), &apiv1.GetRequest{})
			if err == nil {
				answered.Add(1)
				return
			}
			refused.Add(1)
			delay, ok := apierr.RetryAfter(err)
			if apierr.Code(err) != codes.ResourceExhausted || apierr.Reason(err) != apierr.ReasonOverloaded || !ok || delay <= 0 || delay > 15*time.Second {
				t.Errorf("a call that was too many: %v, try again in %s", err, delay)
			}
		})
	}
	load := func(metric, level string) float64 { return metricstest.Values(t, registry, metric)[level] }
	var seats int
	await(t, "all calls are in, wait or are refused", func() bool {
		seats = int(load(metrics.RPCSeats, "nodes"))
		return load(metrics.RPCQueue, "nodes") == 50 && int(refused.Load()) == 200-50-seats
	})
	for range 20 {
		if _, err := person.Get(ctx, &apiv1.GetRequest{}); err != nil {
			t.Fatalf("a person's call: %v", err)
		}
		if resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("health: %v, %v", resp, err)
		}
	}
	if n := load(metrics.RPCQueue, "nodes"); n != 50 {
		t.Errorf("%v calls of the node wait: it was not busy meanwhile", n)
	}
	if n := load(metrics.RPCOverloaded, "nodes,"+fairness.ReasonCaller); int32(n) != refused.Load() {
		t.Errorf("the metric counts %v refused calls, want %d", n, refused.Load())
	}
	end()
	calls.Wait()
	if int(answered.Load()) != 50+seats {
		t.Errorf("%d calls were answered, want %d", answered.Load(), 50+seats)
	}
	if n := load(metrics.RPCWaitSeconds, "nodes"); int(n) != 50+seats {
		t.Errorf("the waits of %v calls were measured, want %d", n, 50+seats)
	}
	for _, level := range []string{"nodes", "people"} {
		await(t, "all seats are free", func() bool { return load(metrics.RPCSeats, level) == 0 })
	}
	// Its state, from the start on, was SERVING.
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("the watched health: %v, %v", resp, err)
	}
}

// TestCallsWaitBeforeTheirRequests fills the server and opens a call whose request never comes: it
// waits for its turn, and is refused for that.
func TestCallsWaitBeforeTheirRequests(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	api := &testAPI{get: func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) {
		<-release
		return &apiv1.GetResponse{}, nil
	}}
	s := newTokenSiteWith(t, rpc.ServerConfig{
		Edge: edge.Limits{ReceiveTimeout: time.Minute}, Fairness: fairness.Config{Seats: 5, Queues: fairness.Queues{MaxWait: 100 * time.Millisecond}},
	}, api)
	go func() {
		_, _ = apiv1.NewResourceServiceClient(s.accountConn("a.good.token")).Get(t.Context(), &apiv1.GetRequest{})
	}()
	await(t, "the server is full", func() bool {
		return metricstest.Values(t, s.metrics, metrics.RPCSeats)["controllers"] == 1
	})
	c := s.mustStranger()
	stream, err := c.Open(apiv1.ResourceService_Get_FullMethodName, "authorization", "Bearer a.good.token")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Answer(testContext(t), stream)
	if err != nil || answer["grpc-status"] != "8" || !strings.Contains(answer["grpc-message"], "waited for") {
		t.Errorf("answered %v, %v, want RESOURCE_EXHAUSTED after a wait", answer, err)
	}
}

// TestUnfinishedRequestsKeepFewSeats opens calls whose requests do not come: they keep as many
// seats as their caller may receive requests at once, others of the level are served, and health
// does not wait for them either.
func TestUnfinishedRequestsKeepFewSeats(t *testing.T) {
	api := &testAPI{get: func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) { return &apiv1.GetResponse{}, nil }}
	s := newTokenSiteWith(t, rpc.ServerConfig{
		Edge: edge.Limits{ReceivingPerCaller: 2, ReceiveTimeout: time.Minute}, Fairness: fairness.Config{Seats: 20},
	}, api)
	c := s.mustStranger()
	for range 40 {
		if _, err := c.Open(apiv1.ResourceService_Get_FullMethodName, "authorization", "Bearer a.good.token"); err != nil {
			t.Fatal(err)
		}
	}
	scheduler := apiv1.NewResourceServiceClient(s.cluster.Dial(t, s.address, s.cluster.Service(t, "scheduler"), rpc.ClientConfig{}))
	await(t, "the caller's turns are taken", func() bool {
		if _, err := scheduler.Get(testContext(t), &apiv1.GetRequest{}); err != nil {
			t.Fatalf("another caller of the level: %v", err)
		}
		return metricstest.Values(t, s.metrics, metrics.RPCSeats)["controllers"] == 2
	})
	health := healthpb.NewHealthClient(s.accountConn("a.good.token"))
	if resp, err := health.Check(testContext(t), &healthpb.HealthCheckRequest{}); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health for the same caller: %v, %v", resp, err)
	}
}

// TestWatchesKeepTheirSeatsForTheirStart watches the seats while a watch sends its state, and after
// that.
func TestWatchesKeepTheirSeatsForTheirStart(t *testing.T) {
	cluster, registry := rpctest.NewCluster(t), prometheus.NewRegistry()
	started := make(chan struct{})
	api := &testAPI{watch: func(stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
		if err := stream.Send(&apiv1.WatchResponse{ResourceVersion: "1"}); err != nil {
			return err
		}
		select {
		case <-started:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		rpc.EndOfStart(stream.Context())
		rpc.EndOfStart(stream.Context())
		return waiting(stream)
	}}
	address, _ := cluster.Serve(t, rpc.ServerConfig{
		Metrics: registry, DrainLimit: 50 * time.Millisecond, Fairness: fairness.Config{Seats: 5},
		Starts: func(method string) bool { return method == apiv1.ResourceService_Watch_FullMethodName },
	}, api.register)
	inUse := func() float64 { return metricstest.Values(t, registry, metrics.RPCSeats)["people"] }
	conn := cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{})
	watch := openWatch(t, conn)
	if n := inUse(); n != 1 {
		t.Errorf("%v seats are in use while a watch sends its state", n)
	}
	close(started)
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	if n := inUse(); n != 0 {
		t.Errorf("%v seats are in use after the start of the only watch", n)
	}
	// Many can be open at once then.
	for range 10 {
		watch := openWatch(t, conn)
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAbandonedWatchesGiveTheirSeatsBack ends a watch before it has sent its state.
func TestAbandonedWatchesGiveTheirSeatsBack(t *testing.T) {
	cluster, registry := rpctest.NewCluster(t), prometheus.NewRegistry()
	address, _ := cluster.Serve(t, rpc.ServerConfig{
		Metrics: registry, Starts: func(string) bool { return true }, DrainLimit: 50 * time.Millisecond,
	}, (&testAPI{watch: waiting}).register)
	inUse := func() float64 { return metricstest.Values(t, registry, metrics.RPCSeats)["people"] }
	ctx, cancel := context.WithCancel(testContext(t))
	watch, err := apiv1.NewResourceServiceClient(cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{})).Watch(ctx, &apiv1.WatchRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := inUse(); n != 1 {
		t.Errorf("%v seats are in use", n)
	}
	cancel()
	await(t, "the seat is free", func() bool { return inUse() == 0 })
}

// TestLevels makes calls of all kinds of callers and looks at which levels they were of.
func TestLevels(t *testing.T) {
	api := &testAPI{get: func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) { return &apiv1.GetResponse{}, nil }}
	s := newTokenSiteWith(t, rpc.ServerConfig{}, api)
	for _, tt := range []struct {
		name    string
		as      *pki.Source
		headers []string
		lease   bool
		want    string
	}{
		{name: "a person", as: s.cluster.Admin(t), want: "people"},
		{name: "a person with a lease", as: s.cluster.Admin(t), lease: true, want: "people"},
		{name: "a person who claims a lease", as: s.cluster.Admin(t), headers: []string{edge.HeaderLease, "true"}, want: "people"},
		{name: "a node", as: s.cluster.Source(t, pki.NodeRequest("node-1")), want: "nodes"},
		{name: "a node's lease", as: s.cluster.Source(t, pki.NodeRequest("node-1")), lease: true, want: "leases"},
		{name: "a node's Lease object", as: s.cluster.Source(t, pki.NodeRequest("node-1")), headers: []string{edge.HeaderLease, "true"}, want: "leases"},
		{name: "a service", as: s.cluster.Service(t, "scheduler"), want: "controllers"},
		{name: "a service's lease", as: s.cluster.Service(t, "scheduler"), lease: true, want: "system"},
		{name: "an election", as: s.cluster.Service(t, "scheduler"), headers: []string{edge.HeaderLease, "true"}, want: "system"},
		{name: "the gateway", as: s.cluster.Service(t, "gateway"), want: "controllers"},
		{name: "a person behind the gateway", as: s.cluster.Service(t, "gateway"), headers: []string{edge.HeaderUser, "ann"}, want: "people"},
		{name: "a node behind the gateway", as: s.cluster.Service(t, "gateway"),
			headers: []string{edge.HeaderUser, "system:node:node-1", edge.HeaderGroup, pki.GroupNodes}, want: "nodes"},
		{name: "a service account behind the gateway", as: s.cluster.Service(t, "gateway"),
			headers: []string{edge.HeaderUser, "system:serviceaccount:default:web", edge.HeaderLease, "true"}, want: "controllers"},
	} {
		before := metricstest.Values(t, s.metrics, metrics.RPCWaitSeconds)
		conn := s.cluster.Dial(t, s.address, tt.as, rpc.ClientConfig{})
		ctx := metadata.AppendToOutgoingContext(testContext(t), tt.headers...)
		var err error
		if tt.lease {
			_, err = apiv1.NewLeaseServiceClient(conn).Grant(ctx, &apiv1.GrantRequest{})
		} else {
			_, err = apiv1.NewResourceServiceClient(conn).Get(ctx, &apiv1.GetRequest{})
		}
		if err != nil && apierr.Code(err) != codes.Unimplemented {
			t.Fatalf("%s: %v", tt.name, err)
		}
		for level, n := range metricstest.Values(t, s.metrics, metrics.RPCWaitSeconds) {
			if got := n - before[level]; got != 0 && level != tt.want || got != 1 && level == tt.want {
				t.Errorf("%s: %v calls of level %s, want one of level %s", tt.name, got, level, tt.want)
			}
		}
	}
}
