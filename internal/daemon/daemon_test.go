package daemon_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/loopbacktest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// testService answers Version and ends by its fail channel or ctx.
type testService struct {
	clusterv1.UnimplementedClusterServiceServer
	ready chan struct{}
	fail  chan error
}

func (s *testService) Register(r grpc.ServiceRegistrar) { clusterv1.RegisterClusterServiceServer(r, s) }

func (s *testService) Ready() <-chan struct{} { return s.ready }

func (s *testService) Run(ctx context.Context) error {
	select {
	case err := <-s.fail:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (s *testService) Version(context.Context, *clusterv1.VersionRequest) (*clusterv1.VersionResponse, error) {
	return &clusterv1.VersionResponse{Version: "test"}, nil
}

type testConfig struct {
	Size int `yaml:"size"`
}

func (c *testConfig) Validate() error {
	if c.Size < 0 {
		return daemon.Problem("size", "must not be negative")
	}
	return nil
}

// start runs a daemon of service "apiserver" with files as in production.
func start(t *testing.T, ctx context.Context, cluster *rpctest.Cluster, etcd *etcdtest.Cluster, service *testService) (config daemon.Config, ended <-chan error) {
	t.Helper()
	dir := t.TempDir()
	files := pki.Files{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	if err := pki.WriteFile(files.CA, cluster.CA.CertPEM()); err != nil {
		t.Fatal(err)
	}
	pair, err := cluster.CA.Issue(pki.ServiceRequest("apiserver", "master-1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.WriteFiles(files.Cert, files.Key); err != nil {
		t.Fatal(err)
	}
	config = daemon.Config{
		Host:    "master-1",
		Listen:  "127.0.0.1:0",
		Metrics: loopbacktest.Address(t).String(),
		TLS:     files,
		Etcd:    daemon.EtcdConfig{Endpoints: etcd.Endpoints()},
		Log:     daemon.LogConfig{Level: "error", Format: "json"},
		Drain:   daemon.DrainConfig{Limit: 5 * time.Second},
	}
	result := make(chan error, 1)
	go func() {
		result <- daemon.Run(ctx, daemon.Spec[testConfig]{
			Name: "apiserver",
			Port: 7001,
			New: func(context.Context, testConfig, *daemon.Deps) (daemon.Service, error) {
				return service, nil
			},
		}, config, testConfig{})
	}()
	return config, result
}

func TestRun(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	cluster := rpctest.NewCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	service := &testService{ready: make(chan struct{})}
	config, ended := start(t, ctx, cluster, etcd, service)

	directory := discovery.New(etcd.Client(), zaptest.NewLogger(t))
	defer directory.Close()
	if instances, err := directory.Instances(ctx); err != nil || len(instances) != 0 {
		t.Fatalf("registered before it was ready: %v, %v", instances, err)
	}
	close(service.ready)

	conn := cluster.Dial(t, "xebec:///apiserver", cluster.Admin(t), rpc.ClientConfig{Discovery: directory})
	client := clusterv1.NewClusterServiceClient(conn)
	for {
		_, err := client.Version(ctx, &clusterv1.VersionRequest{}, grpc.WaitForReady(true))
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	reader := cluster.Source(t, pki.MonitorRequest("prometheus")).ClientConfig(pki.AnyServer)
	reader.NextProtos = nil
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: reader}}).Get("https://" + config.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"xebec_discovery_registered 1", "xebec_certificate_expiry_timestamp_seconds", "xebec_rpc_server_handled_total"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("a stop by signal ended with %v", err)
	}
	instances, err := directory.Instances(t.Context())
	if err != nil || len(instances) != 0 {
		t.Errorf("still registered after the end: %v, %v", instances, err)
	}
}

func TestRunEndsWithItsService(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	service := &testService{ready: make(chan struct{}), fail: make(chan error, 1)}
	_, ended := start(t, t.Context(), rpctest.NewCluster(t), etcd, service)
	broken := errors.New("broken")
	service.fail <- broken
	if err := <-ended; !errors.Is(err, broken) {
		t.Errorf("ended with %v", err)
	}
}

func TestRunRefusesBadConfiguration(t *testing.T) {
	err := daemon.Run(t.Context(), daemon.Spec[testConfig]{Name: "x", Port: 1}, daemon.Config{}, testConfig{Size: -1})
	if err == nil || !strings.Contains(err.Error(), "size: must not be negative") || !strings.Contains(err.Error(), "tls.ca: required") {
		t.Errorf("got %v", err)
	}
}
