package discovery_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"

	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// named answers Version with its own name.
type named struct {
	clusterv1.UnimplementedClusterServiceServer
	name string
}

func (n named) Version(context.Context, *clusterv1.VersionRequest) (*clusterv1.VersionResponse, error) {
	return &clusterv1.VersionResponse{Version: n.name}, nil
}

// register lists an instance until the returned function is called, and returns when it is listed.
func register(t *testing.T, client *clientv3.Client, instance discovery.Instance) (changes chan bool, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changes = make(chan bool, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := discovery.Register(ctx, client, instance, zaptest.NewLogger(t), func(on bool) { changes <- on }); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	await(t, changes, true)
	return changes, stop
}

func await(t *testing.T, changes <-chan bool, want bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case got := <-changes:
			if got == want {
				return
			}
		case <-deadline:
			t.Fatalf("registration did not become %v", want)
		}
	}
}

func TestResolverFollowsInstances(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	client := etcd.Client()
	cluster := rpctest.NewCluster(t)
	directory := discovery.New(client, zaptest.NewLogger(t))
	t.Cleanup(directory.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	conn := cluster.Dial(t, "xebec:///apiserver", cluster.Admin(t), rpc.ClientConfig{Discovery: directory})
	ask := func() (string, error) {
		resp, err := clusterv1.NewClusterServiceClient(conn).Version(ctx, &clusterv1.VersionRequest{})
		return resp.GetVersion(), err
	}
	if _, err := ask(); err == nil {
		t.Fatal("a service without an instance answered")
	}

	serve := func(host string) (stopServer, deregister func()) {
		address, stopServer := cluster.Serve(t, rpc.ServerConfig{}, func(r grpc.ServiceRegistrar) {
			clusterv1.RegisterClusterServiceServer(r, named{name: host})
		})
		_, deregister = register(t, client, discovery.Instance{Service: "apiserver", Host: host, Addr: address, Version: "v1"})
		return stopServer, deregister
	}
	until := func(what string, want ...string) {
		t.Helper()
		seen := map[string]bool{}
		for len(seen) < len(want) {
			got, err := ask()
			if ctx.Err() != nil {
				t.Fatalf("%s: %v; saw %v", what, err, seen)
			}
			if err == nil {
				seen[got] = true
			}
		}
	}
	stopFirst, deregisterFirst := serve("master-1")
	until("the first instance", "master-1")
	_, deregisterSecond := serve("master-2")
	until("both instances", "master-1", "master-2")

	instances, err := directory.Instances(ctx)
	if err != nil || len(instances) != 2 || instances[0].Host != "master-1" || instances[1].Version != "v1" {
		t.Errorf("instances are %+v, %v", instances, err)
	}

	deregisterFirst()
	stopFirst()
	for range 20 {
		if got, err := ask(); err != nil || got != "master-2" {
			t.Fatalf("after the first instance left: %q, %v", got, err)
		}
	}
	// The last one's address stays in use: the registration may be gone for reasons that are not the
	// instance's.
	deregisterSecond()
	if instances, err := directory.Instances(ctx); err != nil || len(instances) != 0 {
		t.Fatalf("instances are %+v, %v", instances, err)
	}
	for range 20 {
		if _, err := ask(); err != nil {
			t.Fatal(err)
		}
	}
}

// recorder is a connection that keeps what its resolver says.
type recorder struct {
	resolver.ClientConn
	addresses []string
	err       error
}

func (c *recorder) UpdateState(s resolver.State) error {
	for _, e := range s.Endpoints {
		c.addresses = append(c.addresses, e.Addresses[0].Addr)
	}
	return nil
}

func (c *recorder) ReportError(err error) { c.err = err }

// TestListedIsResolved resolves a service that was registered after the directory last heard of a
// change.
func TestListedIsResolved(t *testing.T) {
	client := etcdtest.New(t, 1).Client()
	directory := discovery.New(client, zaptest.NewLogger(t))
	t.Cleanup(directory.Close)
	register(t, client, discovery.Instance{Service: "nodes", Host: "master-1", Addr: "127.0.0.1:7005", Version: "v1"})
	if instances, err := directory.Instances(t.Context()); err != nil || len(instances) != 1 {
		t.Fatal(instances, err)
	}
	conn := &recorder{}
	target, err := url.Parse("xebec:///nodes")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := directory.Build(resolver.Target{URL: *target}, conn, resolver.BuildOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(conn.addresses) != 1 || conn.err != nil {
		t.Errorf("the resolver reported %v, %v", conn.addresses, conn.err)
	}
}

func TestAddressesOutliveEtcd(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	client := etcd.Client()
	cluster := rpctest.NewCluster(t)
	directory := discovery.New(client, zaptest.NewLogger(t))
	t.Cleanup(directory.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	address, _ := cluster.Serve(t, rpc.ServerConfig{}, func(r grpc.ServiceRegistrar) {
		clusterv1.RegisterClusterServiceServer(r, named{name: "master-1"})
	})
	changes, _ := register(t, client, discovery.Instance{Service: "apiserver", Host: "master-1", Addr: address})
	conn := cluster.Dial(t, "xebec:///apiserver", cluster.Admin(t), rpc.ClientConfig{Discovery: directory})
	ask := func() error {
		_, err := clusterv1.NewClusterServiceClient(conn).Version(ctx, &clusterv1.VersionRequest{})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	etcd.Members()[0].Kill()
	await(t, changes, false)
	if err := ask(); err != nil {
		t.Errorf("while etcd is down: %v", err)
	}
	etcd.Members()[0].Start()
	await(t, changes, true)
	if err := ask(); err != nil {
		t.Errorf("after etcd came back: %v", err)
	}
}

// TestSlowRegistration registers an instance where every answer of etcd takes so long that the
// first attempt's time is over in its middle.
func TestSlowRegistration(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	line := etcdtest.NewLine(t, etcd.Endpoints()[0])
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{line.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.Get(t.Context(), "/"); err != nil {
		t.Fatal(err) // connects
	}
	line.Delay(1700 * time.Millisecond)
	changes, _ := register(t, client, discovery.Instance{Service: "apiserver", Host: "master-1", Addr: "127.0.0.1:7001"})
	leases := func() int {
		t.Helper()
		resp, err := etcd.Client().Leases(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(resp.Leases)
	}
	if n := leases(); n != 1 {
		t.Errorf("etcd holds %d leases of one registration", n)
	}
	// Each renewal takes longer than a member has at first.
	select {
	case on := <-changes:
		t.Errorf("the registration became %v", on)
	case <-time.After(3 * discovery.TTL):
	}
	if resp, err := etcd.Client().Get(t.Context(), discovery.Prefix, clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("the registrations are %v, %v", resp, err)
	}
	if n := leases(); n != 1 {
		t.Errorf("then etcd holds %d leases", n)
	}
	line.Delay(0)
}
