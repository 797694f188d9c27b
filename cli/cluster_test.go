package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

var updateGolden = flag.Bool("update", false, "rewrite the golden files")

// testNow is when all commands in tests run.
var testNow = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(testNow.Add(-d)) }

// fakeCluster is what a gateway leads to: the API in memory, with an apply for what the command
// line makes of its results, and the other services with answers that tests set.
type fakeCluster struct {
	*clienttest.Server
	clusterv1.UnimplementedClusterServiceServer
	controlv1.UnimplementedControllerServiceServer
	schedulerv1.UnimplementedSchedulerServiceServer
	nodev1.UnimplementedNodeServiceServer

	connect func() (*grpc.ClientConn, error)

	etcd   *fakeEtcd
	auth   *fakeAuth
	access *clusterv1.AccessResponse

	// owner holds a field that an apply without force conflicts with.
	owner    string
	warnings []string
	status   *clusterv1.StatusResponse
	verdict  *schedulerv1.ExplainResponse
	services *nodev1.ListServicesResponse
	control  *controlv1.ListControllersResponse
	logs     func(*nodev1.LogsRequest, grpc.ServerStreamingServer[nodev1.LogsResponse]) error
	attach   func(grpc.BidiStreamingServer[nodev1.AttachRequest, nodev1.AttachResponse]) error
	exec     func(grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]) error
	stats    func(*nodev1.StatsRequest) (*nodev1.StatsResponse, error)
	network  fakeNetwork

	portForward func(grpc.BidiStreamingServer[nodev1.PortForwardRequest, nodev1.PortForwardResponse]) error

	mu     sync.Mutex
	loaded map[string]string // content by node
}

// apiOnly hides all but the API, whose Apply is the fake's.
type apiOnly struct {
	*clienttest.Server
	fake *fakeCluster
}

func (a apiOnly) Apply(ctx context.Context, req *apiv1.ApplyRequest) (*apiv1.ApplyResponse, error) {
	obj, packed, err := appliedObject(req)
	if err != nil {
		return nil, err
	}
	k := kinds.Of(obj)
	if a.fake.owner != "" && !req.GetForce() {
		return nil, apierr.ApplyConflict(k, obj.GetMetadata().GetName(), []apierr.FieldConflict{{Field: ".spec.replicas", Manager: a.fake.owner}})
	}
	ref := &apiv1.ObjectReference{Group: k.Group, Kind: k.Name, Namespace: obj.GetMetadata().GetNamespace(), Name: obj.GetMetadata().GetName()}
	before, err := a.Get(ctx, &apiv1.GetRequest{Object: ref})
	if apierr.IsNotFound(err) {
		created, err := a.Create(ctx, &apiv1.CreateRequest{Object: packed, DryRun: req.GetDryRun()})
		return &apiv1.ApplyResponse{Object: created.GetObject(), Result: apiv1.ApplyResult_APPLY_RESULT_CREATED, Warnings: a.fake.warnings}, err
	}
	if err != nil {
		return nil, err
	}
	after, err := a.Patch(ctx, &apiv1.PatchRequest{Object: ref, Type: apiv1.PatchType_PATCH_TYPE_MERGE, Patch: req.GetJson(), DryRun: req.GetDryRun()})
	if err != nil {
		return nil, err
	}
	result := apiv1.ApplyResult_APPLY_RESULT_CONFIGURED
	if bytes.Equal(before.GetObject().GetValue(), after.GetObject().GetValue()) {
		result = apiv1.ApplyResult_APPLY_RESULT_UNCHANGED
	}
	return &apiv1.ApplyResponse{Object: after.GetObject(), Result: result}, nil
}

// appliedObject decodes the JSON of an apply, which is all that the command line sends.
func appliedObject(req *apiv1.ApplyRequest) (scheme.Object, *anypb.Any, error) {
	obj, err := codec.Unmarshal(req.GetJson())
	if err != nil {
		return nil, nil, apierr.BadField("json", "%v", err)
	}
	packed, err := anypb.New(obj)
	return obj, packed, err
}

func (c *fakeCluster) Status(context.Context, *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	return c.status, nil
}

func (c *fakeCluster) WhoAmI(ctx context.Context, _ *clusterv1.WhoAmIRequest) (*clusterv1.WhoAmIResponse, error) {
	if id := edge.IdentityFromContext(ctx); id.User != "" {
		return &clusterv1.WhoAmIResponse{User: id.User, Groups: id.Groups}, nil
	}
	return &clusterv1.WhoAmIResponse{User: "ann", Groups: []string{"system:masters"}}, nil
}

func (c *fakeCluster) Access(context.Context, *clusterv1.AccessRequest) (*clusterv1.AccessResponse, error) {
	return c.access, nil
}

func (c *fakeCluster) Version(context.Context, *clusterv1.VersionRequest) (*clusterv1.VersionResponse, error) {
	return &clusterv1.VersionResponse{Version: "v0.1.0", Commit: "0123456789abcdef", GoVersion: "go1.26"}, nil
}

func (c *fakeCluster) Explain(context.Context, *schedulerv1.ExplainRequest) (*schedulerv1.ExplainResponse, error) {
	return c.verdict, nil
}

func (c *fakeCluster) ListControllers(context.Context, *controlv1.ListControllersRequest) (*controlv1.ListControllersResponse, error) {
	return c.control, nil
}

func (c *fakeCluster) Resync(_ context.Context, req *controlv1.ResyncRequest) (*controlv1.ResyncResponse, error) {
	return &controlv1.ResyncResponse{Keys: int64(len(req.GetController()))}, nil
}

func (c *fakeCluster) ListServices(context.Context, *nodev1.ListServicesRequest) (*nodev1.ListServicesResponse, error) {
	return c.services, nil
}

func (c *fakeCluster) Logs(req *nodev1.LogsRequest, stream grpc.ServerStreamingServer[nodev1.LogsResponse]) error {
	return c.logs(req, stream)
}

func (c *fakeCluster) Attach(stream grpc.BidiStreamingServer[nodev1.AttachRequest, nodev1.AttachResponse]) error {
	return c.attach(stream)
}

func (c *fakeCluster) Exec(stream grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]) error {
	return c.exec(stream)
}

func (c *fakeCluster) Stats(_ context.Context, req *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
	return c.stats(req)
}

func (c *fakeCluster) PortForward(stream grpc.BidiStreamingServer[nodev1.PortForwardRequest, nodev1.PortForwardResponse]) error {
	return c.portForward(stream)
}

func (c *fakeCluster) ImportImage(stream grpc.ClientStreamingServer[nodev1.ImportImageRequest, nodev1.ImportImageResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	var data []byte
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		data = append(data, req.GetData()...)
	}
	c.mu.Lock()
	c.loaded[first.GetTarget().GetNode()] = string(data)
	c.mu.Unlock()
	if first.GetTarget().GetNode() == "full" {
		return apierr.New(8, apierr.ReasonStorageFull, "no space left on the node")
	}
	return stream.SendAndClose(&nodev1.ImportImageResponse{Images: []*nodev1.Image{{Name: "docker.io/library/echo:1"}}})
}

// Transact makes creates and updates of applies, which are without owners here.
func (a apiOnly) Transact(ctx context.Context, req *apiv1.TransactRequest) (*apiv1.TransactResponse, error) {
	results := make([]*apiv1.OperationResult, len(req.GetOperations()))
	for i, op := range req.GetOperations() {
		results[i] = &apiv1.OperationResult{}
		apply := op.GetApply()
		if apply == nil {
			continue
		}
		obj, packed, err := appliedObject(apply)
		if err != nil {
			return nil, err
		}
		k := kinds.Of(obj)
		ref := &apiv1.ObjectReference{Group: k.Group, Kind: k.Name, Namespace: obj.GetMetadata().GetNamespace(), Name: obj.GetMetadata().GetName()}
		results[i].Applied = apiv1.ApplyResult_APPLY_RESULT_CONFIGURED
		op.Operation = &apiv1.Operation_Update{Update: &apiv1.UpdateRequest{Object: packed}}
		if _, err := a.Get(ctx, &apiv1.GetRequest{Object: ref}); apierr.IsNotFound(err) {
			results[i].Applied = apiv1.ApplyResult_APPLY_RESULT_CREATED
			op.Operation = &apiv1.Operation_Create{Create: &apiv1.CreateRequest{Object: packed}}
		}
	}
	resp, err := a.Server.Transact(ctx, req)
	if err == nil {
		resp.Results = results
	}
	return resp, err
}

// startCluster serves a fake cluster over a connection in memory until the test ends.
func startCluster(t *testing.T) *fakeCluster {
	t.Helper()
	c := &fakeCluster{Server: clienttest.NewServer(), loaded: map[string]string{}, status: &clusterv1.StatusResponse{}, etcd: &fakeEtcd{}, auth: &fakeAuth{}}
	server := grpc.NewServer()
	api := apiOnly{c.Server, c}
	apiv1.RegisterResourceServiceServer(server, api)
	apiv1.RegisterLeaseServiceServer(server, c.Server)
	clusterv1.RegisterClusterServiceServer(server, c)
	controlv1.RegisterControllerServiceServer(server, c)
	schedulerv1.RegisterSchedulerServiceServer(server, c)
	nodev1.RegisterNodeServiceServer(server, c)
	etcdv1.RegisterEtcdServiceServer(server, c.etcd)
	authv1.RegisterTokenServiceServer(server, c.auth)
	authv1.RegisterAccessServiceServer(server, c.auth)
	listener := bufconn.Listen(1 << 20)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	c.connect = func() (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///memory",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	t.Setenv(cliconfig.EnvPath, writeFile(t, "config", "current-context: test\ncontexts:\n- {name: test, endpoints: ['127.0.0.1:1'], ca: ca, cert: cert, key: key}\n"))
	return c
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// result is what a command did.
type result struct {
	out, err string
	code     int
}

// run runs a command line on the cluster.
func (c *fakeCluster) run(t *testing.T, args ...string) result {
	t.Helper()
	return c.runInput(t, "", args...)
}

func (c *fakeCluster) runInput(t *testing.T, input string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return c.runContext(t, ctx, input, args...)
}

func (c *fakeCluster) runContext(t *testing.T, ctx context.Context, input string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	s := session.New(session.Streams{In: strings.NewReader(input), Out: &out, Err: &errs})
	s.Now = func() time.Time { return testNow }
	s.Dial = c.dialer()
	code := RunSession(ctx, s, args)
	return result{out.String(), errs.String(), code}
}

// want checks a result; the error output must contain each of the texts, and be empty when there
// are none.
func (r result) want(t *testing.T, code int, out string, errs ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; error output:\n%s", r.code, code, r.err)
	}
	if diff := cmp.Diff(out, r.out); diff != "" {
		t.Errorf("output differs (-want +got):\n%s", diff)
	}
	for _, e := range errs {
		if !strings.Contains(r.err, e) {
			t.Errorf("error output lacks %q:\n%s", e, r.err)
		}
	}
	if len(errs) == 0 && r.err != "" {
		t.Errorf("unexpected error output:\n%s", r.err)
	}
}

// golden compares the output with a file in testdata.
func (r result) golden(t *testing.T, name string) {
	t.Helper()
	if r.code != exit.OK {
		t.Fatalf("exit code %d:\n%s", r.code, r.err)
	}
	path := filepath.Join("testdata", name+".golden")
	if *updateGolden {
		if err := os.WriteFile(path, []byte(r.out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), r.out); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

// dialer returns what a shell dials this cluster with.
func (c *fakeCluster) dialer() func(*cliconfig.Context, ...grpc.DialOption) (*grpc.ClientConn, error) {
	return func(*cliconfig.Context, ...grpc.DialOption) (*grpc.ClientConn, error) { return c.connect() }
}
