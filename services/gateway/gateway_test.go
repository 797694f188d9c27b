package gateway

import (
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/method"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// backend stands for the services behind the gateway: it holds a few objects and echoes what it
// sees of calls.
type backend struct {
	apiv1.UnimplementedResourceServiceServer
	apiv1.UnimplementedLeaseServiceServer
	controlv1.UnimplementedControllerServiceServer
	name string

	mu      sync.Mutex
	objects map[string]proto.Message // by kind and name
	ended   chan error               // gets a Watch's context error

	attempts atomic.Int64 // at reading an object of the kind unanswered
}

// unanswered is a kind whose objects cannot be read.
const unanswered = "Unanswered"

func (b *backend) register(r grpc.ServiceRegistrar) {
	apiv1.RegisterResourceServiceServer(r, b)
	apiv1.RegisterLeaseServiceServer(r, b)
	controlv1.RegisterControllerServiceServer(r, b)
}

func (b *backend) put(kind, name string, object proto.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects == nil {
		b.objects = make(map[string]proto.Message)
	}
	b.objects[kind+"/"+name] = object
}

func (b *backend) Get(ctx context.Context, req *apiv1.GetRequest) (*apiv1.GetResponse, error) {
	if req.GetObject().GetKind() == unanswered {
		b.attempts.Add(1)
		return nil, apierr.Unavailable("etcd does not answer")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	object, ok := b.objects[req.GetObject().GetKind()+"/"+req.GetObject().GetName()]
	if !ok {
		return nil, apierr.New(codes.NotFound, apierr.ReasonNotFound, "no such object")
	}
	packed, err := anypb.New(object)
	return &apiv1.GetResponse{Object: packed}, err
}

func (b *backend) List(_ context.Context, req *apiv1.ListRequest) (*apiv1.ListResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := &apiv1.ListResponse{ResourceVersion: "1"}
	for key, object := range b.objects {
		if strings.HasPrefix(key, req.GetKind()+"/") {
			packed, err := anypb.New(object)
			if err != nil {
				return nil, err
			}
			resp.Objects = append(resp.Objects, packed)
		}
	}
	return resp, nil
}

// Create answers with what it knows of the caller, in the warnings.
func (b *backend) Create(ctx context.Context, req *apiv1.CreateRequest) (*apiv1.CreateResponse, error) {
	id := edge.IdentityFromContext(ctx)
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-header", "h"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
	return &apiv1.CreateResponse{Object: req.GetObject(), Warnings: []string{
		id.User, strings.Join(id.Groups, ","), id.Forwarder, rpc.UserAgent(ctx), strings.Join(md.Get("x-custom"), ","), b.name,
	}}, nil
}

// Watch sends an event and waits for the end. Of the access list, which the gateway itself watches,
// it has none.
func (b *backend) Watch(req *apiv1.WatchRequest, stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
	if req.GetKind() == "GatewayAccess" {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	for i := range 3 {
		if err := stream.Send(&apiv1.WatchResponse{ResourceVersion: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	if b.ended != nil {
		b.ended <- stream.Context().Err()
	}
	return stream.Context().Err()
}

// KeepAlive echoes, and fails on lease 13.
func (b *backend) KeepAlive(stream grpc.BidiStreamingServer[apiv1.KeepAliveRequest, apiv1.KeepAliveResponse]) error {
	for {
		req, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if req.LeaseId == 13 {
			return apierr.New(codes.NotFound, apierr.ReasonNotFound, "the lease has lapsed")
		}
		if err := stream.Send(&apiv1.KeepAliveResponse{LeaseId: req.LeaseId}); err != nil {
			return err
		}
	}
}

func (b *backend) ListControllers(context.Context, *controlv1.ListControllersRequest) (*controlv1.ListControllersResponse, error) {
	return &controlv1.ListControllersResponse{Instance: b.name}, nil
}

// fixture is a gateway with a real etcd and real services on loopback.
type fixture struct {
	t       testing.TB
	cluster *rpctest.Cluster
	etcd    *clientv3.Client
	// directory is where the gateway looks instances up.
	directory *discovery.Directory
	service   *Service
	address   string
	stop      func()
	ctx       context.Context
}

func newFixture(t testing.TB, cfg Config) *fixture {
	t.Helper()
	return newFixtureOf(t, cfg, rpctest.NewCluster(t))
}

// newFixtureOf is newFixture in a cluster.
func newFixtureOf(t testing.TB, cfg Config, cluster *rpctest.Cluster) *fixture {
	t.Helper()
	f := &fixture{t: t, cluster: cluster, etcd: etcdtest.New(t, 1).Client()}
	var cancel context.CancelFunc
	f.ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	f.directory = discovery.New(f.etcd, zaptest.NewLogger(t))
	t.Cleanup(f.directory.Close)
	tls := f.cluster.Service(t, "gateway")
	service, err := New(cfg, Deps{Log: zaptest.NewLogger(t), TLS: tls, Etcd: f.etcd, Directory: f.directory})
	if err != nil {
		t.Fatal(err)
	}
	f.service = service
	runCtx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(runCtx) }()
	t.Cleanup(func() {
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	server := rpc.ServerConfig{TLS: tls}
	service.ConfigureServer(&server)
	f.address, f.stop = f.cluster.Serve(t, server, service.Register)
	return f
}

// serve runs an instance of a service and registers it.
func (f *fixture) serve(service, host string, register func(grpc.ServiceRegistrar)) (stop func()) {
	f.t.Helper()
	address, stop := f.cluster.Serve(f.t, rpc.ServerConfig{
		TLS:        f.cluster.Service(f.t, service),
		Authorize:  func(context.Context, edge.Identity, string) error { return nil },
		DrainLimit: 50 * time.Millisecond,
	}, register)
	ctx, cancel := context.WithCancel(context.Background())
	listed, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		instance := discovery.Instance{Service: service, Host: host, Addr: address, Version: "v1"}
		err := discovery.Register(ctx, f.etcd, instance, zaptest.NewLogger(f.t), func(on bool) {
			if on {
				select {
				case listed <- struct{}{}:
				default: // again, after it lapsed
				}
			}
		})
		if err != nil {
			f.t.Error(err)
		}
	}()
	f.t.Cleanup(func() { cancel(); <-done })
	<-listed
	// The gateway hears of it a moment later, or, with this, now.
	if _, err := f.directory.Instances(f.ctx); err != nil {
		f.t.Fatal(err)
	}
	if service == "apiserver" {
		// The gateway keeps a connection to it from the start, which may take a moment to be made.
		known := apiv1.NewResourceServiceClient(f.dial(pki.AdminRequest("fixture")))
		f.eventually(func() error {
			_, err := known.Get(f.ctx, &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "Pod", Name: "none"}})
			if status.Code(err) == codes.Unavailable {
				return err
			}
			return nil
		})
	}
	return stop
}

func (f *fixture) dial(as pki.Request) *grpc.ClientConn {
	f.t.Helper()
	return f.cluster.Dial(f.t, f.address, f.cluster.Source(f.t, as), rpc.ClientConfig{ServerUser: "xebec:gateway", UserAgent: "kit/1"})
}

// eventually calls until there is no error: a service that was just registered takes a moment to be
// known.
func (f *fixture) eventually(call func() error) {
	f.t.Helper()
	for {
		err := call()
		if err == nil {
			return
		}
		if f.ctx.Err() != nil {
			f.t.Fatal(err)
		}
	}
}

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: &corev1.PodSpec{NodeName: node}}
}

func encode(t testing.TB, message proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func packed(t testing.TB, object proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(object)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestUnary(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	f.serve("apiserver", "master-1", (&backend{name: "one"}).register)
	conn := f.dial(pki.Request{CommonName: "ann", Organizations: []string{"devs"}, Client: true})
	client := apiv1.NewResourceServiceClient(conn)

	t.Run("message, identity and headers", func(t *testing.T) {
		large := pod("web", "")
		large.Metadata.Annotations = map[string]string{"text": strings.Repeat("x", 2<<20)}
		var header, trailer metadata.MD
		ctx := metadata.AppendToOutgoingContext(f.ctx, "x-custom", "c")
		resp, err := client.Create(ctx, &apiv1.CreateRequest{Object: packed(t, large)}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil {
			t.Fatal(err)
		}
		got, err := resp.GetObject().UnmarshalNew()
		if err != nil || !proto.Equal(got, large) {
			t.Error("the object did not come back as it went")
		}
		w := resp.Warnings
		if w[0] != "ann" || w[1] != "devs" || w[2] != "xebec:gateway" || !strings.HasPrefix(w[3], "kit/1") || w[4] != "c" {
			t.Errorf("the service saw %q", w)
		}
		if header.Get("x-header")[0] != "h" || trailer.Get("x-trailer")[0] != "t" {
			t.Errorf("header %v, trailer %v", header, trailer)
		}
	})
	t.Run("error with details", func(t *testing.T) {
		_, err := client.Get(f.ctx, &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "Pod", Name: "none"}})
		if status.Code(err) != codes.NotFound || apierr.Reason(err) != apierr.ReasonNotFound {
			t.Errorf("got %v with reason %q", err, apierr.Reason(err))
		}
	})
	t.Run("a method that the service does not have", func(t *testing.T) {
		_, err := client.Patch(f.ctx, &apiv1.PatchRequest{})
		if status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
	})
	t.Run("too large a message", func(t *testing.T) {
		huge := pod("web", "")
		huge.Metadata.Annotations = map[string]string{"text": strings.Repeat("x", 5<<20)}
		if _, err := client.Create(f.ctx, &apiv1.CreateRequest{Object: packed(t, huge)}); status.Code(err) != codes.ResourceExhausted {
			t.Error(err)
		}
	})
}

func TestForgedHeaders(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	f.serve("apiserver", "master-1", (&backend{}).register)
	for _, as := range []pki.Request{pki.AdminRequest("admin"), pki.ServiceRequest("gateway", "m"), pki.NodeRequest("node-1")} {
		for _, header := range []string{edge.HeaderUser, edge.HeaderGroup, edge.HeaderUserAgent, "x-xebec-anything"} {
			ctx := metadata.AppendToOutgoingContext(f.ctx, header, "system:masters")
			_, err := apiv1.NewResourceServiceClient(f.dial(as)).Create(ctx, &apiv1.CreateRequest{})
			if status.Code(err) != codes.PermissionDenied || apierr.Reason(err) != edge.ReasonForgedIdentity {
				t.Errorf("%s with header %s: %v", as.CommonName, header, err)
			}
		}
	}
}

func TestStreams(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	one := &backend{ended: make(chan error, 1)}
	stop := f.serve("apiserver", "master-1", one.register)
	conn := f.dial(pki.AdminRequest("admin"))

	watch := func(ctx context.Context) grpc.ServerStreamingClient[apiv1.WatchResponse] {
		t.Helper()
		stream, err := apiv1.NewResourceServiceClient(conn).Watch(ctx, &apiv1.WatchRequest{Kind: "Pod"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			event, err := stream.Recv()
			if err != nil || event.ResourceVersion != strconv.Itoa(i) {
				t.Fatalf("event %d: %v, %v", i, event, err)
			}
		}
		return stream
	}
	t.Run("the caller's cancel reaches the service", func(t *testing.T) {
		ctx, cancel := context.WithCancel(f.ctx)
		watch(ctx)
		cancel()
		if err := <-one.ended; err != context.Canceled {
			t.Error(err)
		}
	})
	t.Run("both ways", func(t *testing.T) {
		stream, err := apiv1.NewLeaseServiceClient(conn).KeepAlive(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(5) {
			if err := stream.Send(&apiv1.KeepAliveRequest{LeaseId: i}); err != nil {
				t.Fatal(err)
			}
			if resp, err := stream.Recv(); err != nil || resp.LeaseId != i {
				t.Fatal(resp, err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Error(err)
		}
	})
	t.Run("the service ends it with details", func(t *testing.T) {
		stream, err := apiv1.NewLeaseServiceClient(conn).KeepAlive(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&apiv1.KeepAliveRequest{LeaseId: 13}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.NotFound || apierr.Reason(err) != apierr.ReasonNotFound {
			t.Error(err)
		}
	})
	t.Run("nothing sent", func(t *testing.T) {
		stream, err := apiv1.NewLeaseServiceClient(conn).KeepAlive(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Error(err)
		}
	})
	t.Run("the service dies", func(t *testing.T) {
		stream := watch(f.ctx)
		stop()
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want UNAVAILABLE", err)
		}
		_, err := apiv1.NewResourceServiceClient(conn).Create(f.ctx, &apiv1.CreateRequest{})
		if status.Code(err) != codes.Unavailable || apierr.Reason(err) != apierr.ReasonUnavailable {
			t.Errorf("with no instance left: %v", err)
		}
	})
}

// TestOneLayerRepeats counts the attempts at the apiserver of a call through a gateway: its caller
// repeats it, and the gateway does not.
func TestOneLayerRepeats(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	b := &backend{name: "one"}
	f.serve("apiserver", "master-1", b.register)
	client := apiv1.NewResourceServiceClient(f.dial(pki.AdminRequest("admin")))
	_, err := client.Get(f.ctx, &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: unanswered}})
	if status.Code(err) != codes.Unavailable || b.attempts.Load() != 4 {
		t.Errorf("%v after %d attempts, want 4", err, b.attempts.Load())
	}
}

func TestCallsGoToLivingInstances(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	stopOne := f.serve("apiserver", "master-1", (&backend{name: "one"}).register)
	f.serve("apiserver", "master-2", (&backend{name: "two"}).register)
	client := apiv1.NewResourceServiceClient(f.dial(pki.AdminRequest("admin")))
	seen := map[string]bool{}
	f.eventually(func() error {
		resp, err := client.Create(f.ctx, &apiv1.CreateRequest{})
		if err != nil {
			return err
		}
		if seen[resp.Warnings[5]] = true; len(seen) < 2 {
			return status.Error(codes.Unavailable, "one instance only so far")
		}
		return nil
	})
	stopOne()
	for range 50 {
		if resp, err := client.Create(f.ctx, &apiv1.CreateRequest{}); err != nil || resp.Warnings[5] != "two" {
			t.Fatalf("after one instance drained: %v, %v", resp, err)
		}
	}
}

func TestControllerServiceGoesWhereItsRequestSays(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	f.serve("workloads", "master-1", (&backend{name: "w"}).register)
	f.serve("nodes", "master-1", (&backend{name: "n"}).register)
	client := controlv1.NewControllerServiceClient(f.dial(pki.AdminRequest("admin")))
	for service, want := range map[string]string{"workloads": "w", "nodes": "n"} {
		resp, err := client.ListControllers(f.ctx, &controlv1.ListControllersRequest{Service: service})
		if err != nil || resp.Instance != want {
			t.Errorf("%s: %v, %v", service, resp, err)
		}
	}
	for _, service := range []string{"", "nonesuch", "../x"} {
		if _, err := client.ListControllers(f.ctx, &controlv1.ListControllersRequest{Service: service}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("service %q: %v", service, err)
		}
	}
}

// testAgent is a node agent that names itself.
type testAgent struct {
	nodev1.UnimplementedNodeServiceServer
	name string
}

func (a *testAgent) ListImages(ctx context.Context, _ *nodev1.ListImagesRequest) (*nodev1.ListImagesResponse, error) {
	return &nodev1.ListImagesResponse{Images: []*nodev1.Image{{Name: a.name, Digest: edge.IdentityFromContext(ctx).User}}}, nil
}

func (a *testAgent) Exec(stream grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := stream.Send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stdout{Stdout: []byte(a.name + ":" + first.GetStart().GetTarget().GetPod())}}); err != nil {
		return err
	}
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		if req.GetCloseStdin() {
			return stream.Send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_ExitCode{ExitCode: 3}})
		}
		if err := stream.Send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stdout{Stdout: req.GetStdin()}}); err != nil {
			return err
		}
	}
}

func (a *testAgent) ImportImage(stream grpc.ClientStreamingServer[nodev1.ImportImageRequest, nodev1.ImportImageResponse]) error {
	var size int64
	for {
		req, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&nodev1.ImportImageResponse{Images: []*nodev1.Image{{Name: a.name, SizeBytes: size}}})
		}
		if err != nil {
			return err
		}
		size += int64(len(req.GetData()))
	}
}

func (f *fixture) serveAgent(node, name string) *corev1.Node {
	f.t.Helper()
	address, _ := f.cluster.Serve(f.t, rpc.ServerConfig{TLS: f.cluster.Source(f.t, pki.NodeRequest(node))}, func(r grpc.ServiceRegistrar) {
		nodev1.RegisterNodeServiceServer(r, &testAgent{name: name})
	})
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		f.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		f.t.Fatal(err)
	}
	return &corev1.Node{
		Metadata: &metav1.ObjectMeta{Name: node},
		Status: &corev1.NodeStatus{
			Addresses:       []*corev1.NodeAddress{{Type: "Hostname", Address: node}, {Type: "InternalIP", Address: host}},
			DaemonEndpoints: &corev1.NodeDaemonEndpoints{KubeletEndpoint: &corev1.DaemonEndpoint{Port: int32(number)}},
		},
	}
}

func TestNodeCalls(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	api := &backend{}
	f.serve("apiserver", "master-1", api.register)
	api.put("Node", "node-1", f.serveAgent("node-1", "agent"))
	api.put("Node", "node-2", &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "node-2"}})
	api.put("Pod", "web", pod("web", "node-1"))
	api.put("Pod", "waiting", pod("waiting", ""))
	client := nodev1.NewNodeServiceClient(f.dial(pki.AdminRequest("admin")))
	images := func(target *nodev1.Target) (*nodev1.ListImagesResponse, error) {
		return client.ListImages(f.ctx, &nodev1.ListImagesRequest{Target: target})
	}

	t.Run("by node", func(t *testing.T) {
		resp, err := images(&nodev1.Target{Node: "node-1"})
		if err != nil || resp.Images[0].Name != "agent" || resp.Images[0].Digest != "admin" {
			t.Error(resp, err)
		}
	})
	t.Run("exec by pod", func(t *testing.T) {
		stream, err := client.Exec(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		start := &nodev1.ExecStart{Target: &nodev1.Target{Namespace: "default", Pod: "web"}, Command: []string{"cat"}}
		send := func(req *nodev1.ExecRequest) *nodev1.ExecResponse {
			t.Helper()
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		if got := send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Start{Start: start}}); string(got.GetStdout()) != "agent:web" {
			t.Error(got)
		}
		if got := send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Stdin{Stdin: []byte("hello")}}); string(got.GetStdout()) != "hello" {
			t.Error(got)
		}
		if got := send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_CloseStdin{CloseStdin: true}}); got.GetExitCode() != 3 {
			t.Error(got)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Error(err)
		}
	})
	t.Run("import", func(t *testing.T) {
		stream, err := client.ImportImage(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&nodev1.ImportImageRequest{Target: &nodev1.Target{Node: "node-1"}}); err != nil {
			t.Fatal(err)
		}
		chunk := make([]byte, 256<<10)
		for range 20 {
			if err := stream.Send(&nodev1.ImportImageRequest{Data: chunk}); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := stream.CloseAndRecv()
		if err != nil || resp.Images[0].SizeBytes != 20*256<<10 {
			t.Error(resp, err)
		}
	})
	for _, tt := range []struct {
		name   string
		target *nodev1.Target
		want   codes.Code
	}{
		{"no target", nil, codes.InvalidArgument},
		{"pod without namespace", &nodev1.Target{Pod: "web"}, codes.InvalidArgument},
		{"no such node", &nodev1.Target{Node: "node-9"}, codes.NotFound},
		{"no such pod", &nodev1.Target{Namespace: "default", Pod: "none"}, codes.NotFound},
		{"pod not bound", &nodev1.Target{Namespace: "default", Pod: "waiting"}, codes.FailedPrecondition},
		{"node without address", &nodev1.Target{Node: "node-2"}, codes.FailedPrecondition},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := images(tt.target); status.Code(err) != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("the address changes", func(t *testing.T) {
		api.put("Node", "node-1", f.serveAgent("node-1", "moved"))
		if resp, err := images(&nodev1.Target{Node: "node-1"}); err != nil || resp.Images[0].Name != "moved" {
			t.Error(resp, err)
		}
	})
	t.Run("another node answers at the address", func(t *testing.T) {
		impostor := f.serveAgent("node-3", "impostor")
		impostor.Metadata.Name = "node-1"
		api.put("Node", "node-1", impostor)
		_, err := images(&nodev1.Target{Node: "node-1"})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the server is system:node:node-3") {
			t.Error(err)
		}
	})
	t.Run("only for administrators", func(t *testing.T) {
		for _, as := range []pki.Request{pki.NodeRequest("node-1"), pki.ServiceRequest("scheduler", "m"), {CommonName: "bob", Client: true}} {
			_, err := nodev1.NewNodeServiceClient(f.dial(as)).ListImages(f.ctx, &nodev1.ListImagesRequest{Target: &nodev1.Target{Node: "node-1"}})
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s: %v", as.CommonName, err)
			}
		}
	})
}

func TestReflectionShowsTheWholeAPI(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	stream, err := reflectionpb.NewServerReflectionClient(f.dial(pki.AdminRequest("admin"))).ServerReflectionInfo(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	list := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	names := map[string]bool{}
	for _, service := range list.GetListServicesResponse().GetService() {
		names[service.GetName()] = true
	}
	for _, want := range []string{
		"xebec.api.v1.ResourceService", "xebec.api.v1.LeaseService", "xebec.api.v1.DiscoveryService",
		"xebec.scheduler.v1.SchedulerService",
		"xebec.endpoints.v1.EndpointsService", "xebec.control.v1.ControllerService", "xebec.node.v1.NodeService", "xebec.cluster.v1.ClusterService", "grpc.health.v1.Health",
	} {
		if !names[want] {
			t.Errorf("%s is not listed", want)
		}
	}
	for _, symbol := range []string{
		"xebec.api.v1.ResourceService", "xebec.node.v1.NodeService.Exec", "xebec.core.v1.Pod", "xebec.apps.v1.Deployment",
		"xebec.discovery.v1.EndpointSlice", "xebec.coordination.v1.Lease",
	} {
		resp := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}})
		if len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s is not described: %v", symbol, resp.GetErrorResponse())
		}
	}
}

func TestLimits(t *testing.T) {
	cfg := DefaultConfig()
	cfg.UserLimits = edge.Rates{PerSecond: 0.01, Burst: 2}
	f := newFixture(t, cfg)
	whoAmI := func(as pki.Request) error {
		_, err := clusterv1.NewClusterServiceClient(f.dial(as)).WhoAmI(f.ctx, &clusterv1.WhoAmIRequest{})
		return err
	}
	ann := pki.AdminRequest("ann")
	for range 2 {
		if err := whoAmI(ann); err != nil {
			t.Fatal(err)
		}
	}
	if err := whoAmI(ann); status.Code(err) != codes.ResourceExhausted || apierr.Reason(err) != edge.ReasonRateLimited {
		t.Errorf("got %v", err)
	}
	for range 5 {
		if err := whoAmI(pki.NodeRequest("node-1")); err != nil {
			t.Errorf("a node is limited like a user: %v", err)
		}
	}
}

func TestDrainEndsWatchesSoThatClientsResumeElsewhere(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	f.serve("apiserver", "master-1", (&backend{}).register)
	stream, err := apiv1.NewResourceServiceClient(f.dial(pki.AdminRequest("admin"))).Watch(f.ctx, &apiv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.stop()
	if took := time.Since(began); took > rpc.DefaultDrainLimit {
		t.Errorf("the drain waited %s for a watch", took)
	}
	for {
		if _, err = stream.Recv(); err != nil {
			break
		}
	}
	if status.Code(err) != codes.Unavailable || apierr.Reason(err) != ReasonDraining {
		t.Errorf("got %v", err)
	}
}

func TestStatus(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	api := &backend{}
	holder := "scheduler@master-1"
	api.put("Lease", "scheduler", &coordinationv1.Lease{
		Metadata: &metav1.ObjectMeta{Name: "scheduler", Namespace: "kube-system"},
		Spec:     &coordinationv1.LeaseSpec{HolderIdentity: &holder},
	})
	f.serve("apiserver", "master-1", api.register)
	f.serve("scheduler", "master-1", (&backend{}).register)
	stop := f.serve("scheduler", "master-2", (&backend{}).register)
	stop()
	client := clusterv1.NewClusterServiceClient(f.dial(pki.AdminRequest("admin")))
	resp, err := client.Status(f.ctx, &clusterv1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Problems) > 0 {
		t.Errorf("problems: %q", resp.Problems)
	}
	if len(resp.EtcdMembers) != 1 || !resp.EtcdMembers[0].Healthy || !resp.EtcdMembers[0].Leader || resp.EtcdMembers[0].DbSizeBytes == 0 {
		t.Errorf("etcd: %v", resp.EtcdMembers)
	}
	if len(resp.Services) != 3 {
		t.Fatalf("services: %v", resp.Services)
	}
	if s := resp.Services[0]; s.Service != "apiserver" || !s.Healthy || s.Leader || s.Version != "v1" {
		t.Errorf("apiserver: %v", s)
	}
	if s := resp.Services[1]; s.Host != "master-1" || !s.Healthy || !s.Leader {
		t.Errorf("leader: %v", s)
	}
	if s := resp.Services[2]; s.Host != "master-2" || s.Healthy || s.Leader || s.Error == "" {
		t.Errorf("the stopped one: %v", s)
	}
	_, err = clusterv1.NewClusterServiceClient(f.dial(pki.Request{CommonName: "bob", Client: true})).Status(f.ctx, &clusterv1.StatusRequest{})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("anyone may see the status: %v", err)
	}
}

func TestObject(t *testing.T) {
	ref := &apiv1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web"}
	large := pod("web", "")
	large.Metadata.Annotations = map[string]string{"text": strings.Repeat("x", 1<<20)}
	for _, tt := range []struct {
		method string
		req    proto.Message
		want   string
	}{
		{apiv1.ResourceService_Get_FullMethodName, &apiv1.GetRequest{Object: ref}, "Pod default/web"},
		{apiv1.ResourceService_Delete_FullMethodName, &apiv1.DeleteRequest{Object: ref}, "Pod default/web"},
		{apiv1.ResourceService_Create_FullMethodName, &apiv1.CreateRequest{Object: packed(t, large)}, "Pod default/web"},
		{apiv1.ResourceService_List_FullMethodName, &apiv1.ListRequest{Kind: "Pod", Namespace: "default"}, "Pod default/"},
		{apiv1.ResourceService_Watch_FullMethodName, &apiv1.WatchRequest{Kind: "Node"}, "Node"},
		{nodev1.NodeService_ListImages_FullMethodName, &nodev1.ListImagesRequest{Target: &nodev1.Target{Node: "n"}}, "Node n"},
		{nodev1.NodeService_Exec_FullMethodName, &nodev1.ExecRequest{Request: &nodev1.ExecRequest_Start{Start: &nodev1.ExecStart{Target: &nodev1.Target{Namespace: "a", Pod: "b"}}}}, "Pod a/b"},
		{nodev1.NodeService_Attach_FullMethodName, &nodev1.AttachRequest{Request: &nodev1.AttachRequest_Start{Start: &nodev1.AttachStart{Target: &nodev1.Target{Namespace: "a", Pod: "b"}}}}, "Pod a/b"},
		{apiv1.ResourceService_Evict_FullMethodName, &apiv1.EvictRequest{Eviction: &policyv1.Eviction{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web"}}}, "Pod default/web"},
		{controlv1.ControllerService_Resync_FullMethodName, &controlv1.ResyncRequest{Service: "workloads"}, "workloads"},
	} {
		if got := object(tt.method, rpc.NewFrame(encode(t, tt.req))); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.method, got, tt.want)
		}
	}
}

// TestRepeatedTarget has a request with two targets. The agent decodes the last value of each
// field; the gateway must not route by another.
func TestRepeatedTarget(t *testing.T) {
	request := func(node string) []byte {
		return encode(t, &nodev1.ListImagesRequest{Target: &nodev1.Target{Node: node}})
	}
	twice := rpc.NewFrame(request("first"), request("last"))
	if got := object(nodev1.NodeService_ListImages_FullMethodName, twice); got != "Node last" {
		t.Errorf("the gateway reads %q, the agent Node last", got)
	}
	if _, _, err := new(Service).node(t.Context(), nodev1.NodeService_ListImages_FullMethodName, rpc.NewFrame([]byte{0x0a, 0x09})); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a request that is cut off: %v", err)
	}
}

func FuzzObject(f *testing.F) {
	f.Add([]byte{0x0a, 0x05, 0x0a, 0x03, 'a', 'b', 'c'})
	f.Fuzz(func(t *testing.T, data []byte) {
		method.Each(func(m protoreflect.MethodDescriptor) { object(method.FullName(m), rpc.NewFrame(data)) })
	})
}

func TestLogLevel(t *testing.T) {
	for _, tt := range []struct {
		method string
		code   codes.Code
		want   zapcore.Level
	}{
		{apiv1.ResourceService_Get_FullMethodName, codes.OK, zapcore.DebugLevel},
		{apiv1.ResourceService_Get_FullMethodName, codes.NotFound, zapcore.InfoLevel},
		{apiv1.ResourceService_Delete_FullMethodName, codes.OK, zapcore.InfoLevel},
		{nodev1.NodeService_Exec_FullMethodName, codes.OK, zapcore.InfoLevel},
		{apiv1.LeaseService_KeepAlive_FullMethodName, codes.OK, zapcore.DebugLevel},
		{"/grpc.health.v1.Health/Check", codes.OK, zapcore.DebugLevel},
	} {
		if got := logLevel(tt.method, tt.code); got != tt.want {
			t.Errorf("%s that ends in %s is logged at %s, want %s", tt.method, tt.code, got, tt.want)
		}
	}
}
