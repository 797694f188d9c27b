package rpc_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// testAPI answers WhoAmI, and what its functions say.
type testAPI struct {
	clusterv1.UnimplementedClusterServiceServer
	apiv1.UnimplementedResourceServiceServer
	apiv1.UnimplementedLeaseServiceServer
	get   func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error)
	watch func(grpc.ServerStreamingServer[apiv1.WatchResponse]) error
}

func (a *testAPI) register(r grpc.ServiceRegistrar) {
	clusterv1.RegisterClusterServiceServer(r, a)
	apiv1.RegisterResourceServiceServer(r, a)
	apiv1.RegisterLeaseServiceServer(r, a)
}

func (a *testAPI) WhoAmI(ctx context.Context, _ *clusterv1.WhoAmIRequest) (*clusterv1.WhoAmIResponse, error) {
	id := edge.IdentityFromContext(ctx)
	return &clusterv1.WhoAmIResponse{User: id.User, Groups: append(id.Groups, "agent="+rpc.UserAgent(ctx))}, nil
}

func (a *testAPI) Get(ctx context.Context, req *apiv1.GetRequest) (*apiv1.GetResponse, error) {
	return a.get(ctx, req)
}

func (a *testAPI) Watch(_ *apiv1.WatchRequest, stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
	return a.watch(stream)
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestIdentity(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	address, _ := cluster.Serve(t, rpc.ServerConfig{Authorize: everyone}, (&testAPI{}).register)
	admin, gateway, scheduler := cluster.Admin(t), cluster.Service(t, "gateway"), cluster.Service(t, "scheduler")

	for _, tt := range []struct {
		name       string
		as         *pki.Source
		headers    []string
		user       string
		groups     string
		wantReason string
	}{
		{name: "direct", as: admin, user: "admin", groups: "system:masters"},
		{name: "forwarded by the gateway", as: gateway, headers: []string{edge.HeaderUser, "ann%20%C3%A9", edge.HeaderGroup, "devs", edge.HeaderGroup, "ops", edge.HeaderUserAgent, "kit/1"},
			user: "ann é", groups: "devs ops agent=kit/1"},
		{name: "gateway for itself", as: gateway, user: "xebec:gateway", groups: "xebec:services"},
		{name: "forged by an admin", as: admin, headers: []string{edge.HeaderUser, "bob"}, wantReason: edge.ReasonForgedIdentity},
		{name: "forged by a service", as: scheduler, headers: []string{edge.HeaderUser, "bob"}, wantReason: edge.ReasonForgedIdentity},
		{name: "forged group only", as: scheduler, headers: []string{edge.HeaderGroup, "system:masters"}, wantReason: edge.ReasonForgedIdentity},
		{name: "forged user agent only", as: scheduler, headers: []string{edge.HeaderUserAgent, "x"}, wantReason: edge.ReasonForgedIdentity},
		{name: "gateway names two users", as: gateway, headers: []string{edge.HeaderUser, "a", edge.HeaderUser, "b"}, wantReason: edge.ReasonForgedIdentity},
		{name: "gateway names only a group", as: gateway, headers: []string{edge.HeaderGroup, "system:masters"}, wantReason: edge.ReasonForgedIdentity},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := clusterv1.NewClusterServiceClient(cluster.Dial(t, address, tt.as, rpc.ClientConfig{}))
			ctx := metadata.AppendToOutgoingContext(testContext(t), tt.headers...)
			got, err := client.WhoAmI(ctx, &clusterv1.WhoAmIRequest{})
			if tt.wantReason != "" {
				if status.Code(err) != codes.PermissionDenied || apierr.Reason(err) != tt.wantReason {
					t.Fatalf("got %v with reason %q, want PERMISSION_DENIED with %s", err, apierr.Reason(err), tt.wantReason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if groups := strings.Join(got.Groups, " "); got.User != tt.user || !strings.HasPrefix(groups, tt.groups) {
				t.Errorf("the server saw %q in %q, want %q in %q", got.User, groups, tt.user, tt.groups)
			}
		})
	}
}

// TestAuthorizeByDefault has the calls that a server without Authorize refuses. Those it allows end
// in Unimplemented.
func TestAuthorizeByDefault(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	address, _ := cluster.Serve(t, rpc.ServerConfig{}, (&testAPI{}).register)
	const allowed, refused = codes.Unimplemented, codes.PermissionDenied
	for _, tt := range []struct {
		req                   pki.Request
		status, grant, object codes.Code
	}{
		{pki.AdminRequest("ann"), allowed, allowed, allowed},
		{pki.ServiceRequest("workloads", "m"), allowed, allowed, refused},
		{pki.NodeRequest("node-1"), refused, allowed, refused},
		{pki.Request{CommonName: "bob", Client: true}, refused, refused, refused},
	} {
		ctx, conn := testContext(t), cluster.Dial(t, address, cluster.Source(t, tt.req), rpc.ClientConfig{})
		expect := func(method string, err error, want codes.Code) {
			t.Helper()
			if status.Code(err) != want {
				t.Errorf("%s calls %s: %v, want %v", tt.req.CommonName, method, err, want)
			}
		}
		_, err := clusterv1.NewClusterServiceClient(conn).Status(ctx, &clusterv1.StatusRequest{})
		expect("Status", err, tt.status)
		_, err = apiv1.NewLeaseServiceClient(conn).Grant(ctx, &apiv1.GrantRequest{})
		expect("Grant", err, tt.grant)
		_, err = apiv1.NewResourceServiceClient(conn).List(ctx, &apiv1.ListRequest{})
		expect("List", err, tt.object)
		_, err = clusterv1.NewClusterServiceClient(conn).WhoAmI(ctx, &clusterv1.WhoAmIRequest{})
		expect("WhoAmI", err, codes.OK)
		_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		expect("Check", err, codes.OK)
	}
}

func TestHandshakeRefusals(t *testing.T) {
	cluster, other := rpctest.NewCluster(t), rpctest.NewCluster(t)
	address, _ := cluster.Serve(t, rpc.ServerConfig{}, (&testAPI{}).register)
	for _, tt := range []struct {
		name string
		conn *grpc.ClientConn
		want string
	}{
		{"foreign client", other.Dial(t, address, other.Admin(t), rpc.ClientConfig{}), "not among the trusted authorities"},
		{"another service answers", cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{ServerUser: "xebec:gateway"}),
			"the server is xebec:apiserver, not xebec:gateway"},
	} {
		_, err := clusterv1.NewClusterServiceClient(tt.conn).WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want UNAVAILABLE with %q", tt.name, err, tt.want)
		}
	}
}

func TestPanicBecomesAnError(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	api := &testAPI{get: func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) { panic("boom") }}
	address, _ := cluster.Serve(t, rpc.ServerConfig{}, api.register)
	conn := cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{})
	_, err := apiv1.NewResourceServiceClient(conn).Get(testContext(t), &apiv1.GetRequest{})
	if status.Code(err) != codes.Internal || apierr.Reason(err) != rpc.ReasonPanic || strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v, want INTERNAL with %s and nothing of the panic", err, rpc.ReasonPanic)
	}
}

func TestRateLimitIsPerCaller(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	limits := func(id edge.Identity) edge.Rates {
		if id.Member(pki.GroupServices) {
			return edge.Rates{}
		}
		return edge.Rates{PerSecond: 0.01, Burst: 3}
	}
	address, _ := cluster.Serve(t, rpc.ServerConfig{Rates: limits}, (&testAPI{}).register)
	call := func(source *pki.Source) error {
		conn := cluster.Dial(t, address, source, rpc.ClientConfig{})
		_, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{})
		return err
	}
	ann, bob := cluster.Source(t, pki.AdminRequest("ann")), cluster.Source(t, pki.AdminRequest("bob"))
	for range 3 {
		if err := call(ann); err != nil {
			t.Fatal(err)
		}
	}
	err := call(ann)
	if status.Code(err) != codes.ResourceExhausted || apierr.Reason(err) != edge.ReasonRateLimited {
		t.Fatalf("the fourth call of a burst of three: %v", err)
	}
	var retry *errdetails.RetryInfo
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			retry = info
		}
	}
	if delay := retry.GetRetryDelay().AsDuration(); delay <= 0 || delay > 100*time.Second {
		t.Errorf("retry after %s", delay)
	}
	if err := call(bob); err != nil {
		t.Errorf("another caller is limited too: %v", err)
	}
	for range 10 {
		if err := call(cluster.Service(t, "scheduler")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFrames(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	event := &apiv1.WatchResponse{Type: apiv1.EventType_EVENT_TYPE_ADDED, ResourceVersion: "41"}
	encoded, err := proto.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	shared := rpc.NewFrame(encoded[:2], encoded[2:])
	large := bytes.Repeat([]byte("x"), 300<<10)
	api := &testAPI{
		watch: func(stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
			for range 3 {
				if err := stream.SendMsg(shared); err != nil {
					return err
				}
			}
			return nil
		},
		get: func(_ context.Context, req *apiv1.GetRequest) (*apiv1.GetResponse, error) {
			if req.AtRevision != string(large) {
				t.Errorf("the frame arrived with %d bytes", len(req.AtRevision))
			}
			return &apiv1.GetResponse{}, nil
		},
	}
	address, _ := cluster.Serve(t, rpc.ServerConfig{}, api.register)
	conn := cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{})

	t.Run("a server sends one encoding many times", func(t *testing.T) {
		stream, err := apiv1.NewResourceServiceClient(conn).Watch(testContext(t), &apiv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			got, err := stream.Recv()
			if err != nil || !proto.Equal(got, event) {
				t.Fatalf("received %v, %v", got, err)
			}
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Error(err)
		}
	})
	t.Run("a client sends and receives bytes", func(t *testing.T) {
		request, err := proto.Marshal(&apiv1.GetRequest{AtRevision: string(large)})
		if err != nil {
			t.Fatal(err)
		}
		var response rpc.Frame
		if err := conn.Invoke(testContext(t), apiv1.ResourceService_Get_FullMethodName, rpc.NewFrame(request), &response); err != nil {
			t.Fatal(err)
		}
		if response.Len() != 0 {
			t.Errorf("an empty response has %d bytes", response.Len())
		}
		response.Free()
	})
}

func TestReadsMoveToAnotherInstance(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	var calls [2]atomic.Int32
	var addresses [2]string
	var stops [2]func()
	for i := range 2 {
		api := &testAPI{get: func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) {
			calls[i].Add(1)
			return &apiv1.GetResponse{}, nil
		}}
		addresses[i], stops[i] = cluster.Serve(t, rpc.ServerConfig{}, api.register)
	}
	conn := cluster.Dial(t, "static:///"+addresses[0]+","+addresses[1], cluster.Admin(t), rpc.ClientConfig{})
	client := apiv1.NewResourceServiceClient(conn)
	ctx := testContext(t)
	for calls[0].Load() == 0 || calls[1].Load() == 0 {
		if _, err := client.Get(ctx, &apiv1.GetRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	stops[0]()
	for range 20 {
		if _, err := client.Get(ctx, &apiv1.GetRequest{}); err != nil {
			t.Fatalf("a read failed although an instance lives: %v", err)
		}
	}
}

func TestDrain(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	entered, release := make(chan struct{}), make(chan struct{})
	api := &testAPI{
		get: func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) {
			close(entered)
			<-release
			return &apiv1.GetResponse{}, nil
		},
		watch: func(stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
			if err := stream.Send(&apiv1.WatchResponse{}); err != nil {
				return err
			}
			<-rpc.Draining(stream.Context())
			close(release)
			return status.Error(codes.Unavailable, "draining")
		},
	}
	address, stop := cluster.Serve(t, rpc.ServerConfig{DrainLimit: time.Minute}, api.register)
	client := apiv1.NewResourceServiceClient(cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{}))
	ctx := testContext(t)
	watch, err := client.Watch(ctx, &apiv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	running := make(chan error, 1)
	go func() {
		_, err := client.Get(ctx, &apiv1.GetRequest{})
		running <- err
	}()
	<-entered
	began := time.Now()
	stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a drain with nothing to wait for took %s", took)
	}
	if err := <-running; err != nil {
		t.Errorf("a call that ran when the drain began: %v", err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestDrainCutsOffWhatDoesNotEnd(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	api := &testAPI{watch: func(stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
		if err := stream.Send(&apiv1.WatchResponse{}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}}
	address, stop := cluster.Serve(t, rpc.ServerConfig{DrainLimit: 50 * time.Millisecond}, api.register)
	watch, err := apiv1.NewResourceServiceClient(cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{})).Watch(testContext(t), &apiv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v, want UNAVAILABLE so that the client resumes elsewhere", err)
	}
}

// TestHealthFollows turns a server unhealthy and back, as an apiserver that loses etcd and finds it
// again.
func TestHealthFollows(t *testing.T) {
	var healthy atomic.Bool
	healthy.Store(true)
	cluster := rpctest.NewCluster(t)
	address, _ := cluster.Serve(t, rpc.ServerConfig{Healthy: healthy.Load}, (&testAPI{}).register)
	conn := cluster.Dial(t, "static:///"+address, cluster.Admin(t), rpc.ClientConfig{})
	stream, err := healthpb.NewHealthClient(conn).Watch(testContext(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING,
	} {
		healthy.Store(want == healthpb.HealthCheckResponse_SERVING)
		for {
			resp, err := stream.Recv()
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			if resp.GetStatus() == want {
				break
			}
		}
	}
}

// TestAttempts counts the attempts of one call at a server that answers none: one layer repeats it.
func TestAttempts(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	var attempts atomic.Int64
	api := &testAPI{get: func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) {
		attempts.Add(1)
		return nil, apierr.Unavailable("etcd does not answer")
	}}
	address, _ := cluster.Serve(t, rpc.ServerConfig{Authorize: everyone}, api.register)
	client := apiv1.NewResourceServiceClient(cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{}))
	for _, tt := range []struct {
		ctx  context.Context
		want int64
	}{{testContext(t), 4}, {retry.ByCaller(testContext(t)), 1}} {
		attempts.Store(0)
		if _, err := client.Get(tt.ctx, &apiv1.GetRequest{}); !apierr.IsUnavailable(err) || attempts.Load() != tt.want {
			t.Errorf("%v after %d attempts, want %d", err, attempts.Load(), tt.want)
		}
	}
	// Reach asks until its context ends, with a back-off that is 250 ms on average in the end.
	attempts.Store(0)
	refuse := func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
		attempts.Add(1)
		return apierr.Unavailable("starting")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := rpc.Reach(ctx, address, rpc.ClientConfig{
		TLS: cluster.Admin(t), Options: []grpc.DialOption{grpc.WithChainUnaryInterceptor(refuse)},
	})
	if err == nil || attempts.Load() < 2 || attempts.Load() > 40 {
		t.Errorf("%v after %d attempts in 2 s", err, attempts.Load())
	}
}
