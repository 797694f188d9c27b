package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/xebec-project/xebec/internal/loopbacktest"
	"github.com/xebec-project/xebec/internal/pki"
)

const patience = 30 * time.Second

// memoryDir returns a directory whose disk does not stall.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "xebec-etcd-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// cluster is members on one authority.
type cluster struct {
	t       testing.TB
	dir     string
	ca      *pki.CA
	members []*member
	clients int
}

type member struct {
	cfg     Config
	service *Service
	logs    *observer.ObservedLogs
	stop    func() error
}

func newCluster(t testing.TB, n int, change func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: memoryDir(t)}
	var err error
	if c.ca, err = pki.CreateCA("etcd", time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := c.ca.WriteFiles(filepath.Join(c.dir, "ca.crt"), filepath.Join(c.dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	files := c.files("member", pki.EtcdMemberRequest("localhost", loopbacktest.Address(t).Addr().AsSlice()))
	var initial []string
	for i := range n {
		cfg := DefaultConfig()
		cfg.Name, cfg.DataDir = fmt.Sprint("m", i), filepath.Join(c.dir, fmt.Sprint("m", i))
		cfg.PeerURL, cfg.ClientURL = "https://"+loopbacktest.Address(t).String(), "https://"+loopbacktest.Address(t).String()
		cfg.MetricsURL = "https://" + loopbacktest.Address(t).String()
		cfg.Peer, cfg.Client = files, files
		initial = append(initial, cfg.Name+"="+cfg.PeerURL)
		if change != nil {
			change(&cfg)
		}
		c.members = append(c.members, &member{cfg: cfg})
	}
	for _, m := range c.members {
		m.cfg.InitialCluster = initial
		c.start(m)
	}
	for _, m := range c.members {
		select {
		case <-m.service.Ready():
		case <-time.After(patience):
			t.Fatalf("%s found no leader", m.cfg.Name)
		}
	}
	return c
}

// files issues a certificate.
func (c *cluster) files(name string, request pki.Request) pki.Files {
	c.t.Helper()
	pair, err := c.ca.Issue(request)
	if err != nil {
		c.t.Fatal(err)
	}
	f := pki.Files{CA: filepath.Join(c.dir, "ca.crt"), Cert: filepath.Join(c.dir, name+".crt"), Key: filepath.Join(c.dir, name+".key")}
	if err := pair.WriteFiles(f.Cert, f.Key); err != nil {
		c.t.Fatal(err)
	}
	return f
}

func (c *cluster) start(m *member) {
	c.t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	m.logs = logs
	var err error
	if m.service, err = New(m.cfg, zap.New(core)); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.service.Run(ctx) }()
	m.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	c.t.Cleanup(func() {
		if err := m.stop(); err != nil {
			c.t.Errorf("%s: %v", m.cfg.Name, err)
		}
	})
}

func (c *cluster) client(tlsConfig *tls.Config) *clientv3.Client {
	c.t.Helper()
	var endpoints []string
	for _, m := range c.members {
		endpoints = append(endpoints, m.cfg.ClientURL)
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: tlsConfig, Logger: zap.NewNop(), MaxCallSendMsgSize: maxRequestBytes})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cli.Close() })
	return cli
}

func (c *cluster) trusted() *tls.Config {
	c.t.Helper()
	return c.as(pki.AdminRequest("admin"))
}

// as is how a client with a certificate connects.
func (c *cluster) as(request pki.Request) *tls.Config {
	c.t.Helper()
	c.clients++
	source, err := pki.NewSource(c.files(fmt.Sprint("client-", c.clients), request))
	if err != nil {
		c.t.Fatal(err)
	}
	return source.ClientConfig(pki.AnyServer)
}

func (m *member) status(t testing.TB) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	resp, err := m.service.health.Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status
}

// await waits for a condition.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-ticker.C:
		case <-end:
			t.Fatalf("%s did not happen in %s", what, patience)
		}
	}
}

func TestMembers(t *testing.T) {
	c := newCluster(t, 3, nil)
	cli := c.client(c.trusted())
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	// A cluster that has just lost its leader, or found one, may refuse a call or two.
	write := func(value string) {
		t.Helper()
		await(t, "a write of "+value, func() bool {
			_, err := cli.Put(ctx, "/a", value)
			if err != nil {
				t.Log(err)
			}
			return err == nil
		})
	}
	write("1")

	t.Run("large transaction", func(t *testing.T) {
		var ops []clientv3.Op
		for i := range 2000 {
			ops = append(ops, clientv3.OpPut(fmt.Sprint("/many/", i), "x"))
		}
		if _, err := cli.Txn(ctx).Then(ops...).Commit(); err != nil {
			t.Error(err)
		}
		if _, err := cli.Put(ctx, "/large", strings.Repeat("x", 3<<20)); err != nil {
			t.Error(err)
		}
	})

	t.Run("without a certificate", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		anonymous := c.trusted()
		anonymous.GetClientCertificate, anonymous.Certificates = nil, nil
		if _, err := c.client(anonymous).Get(ctx, "/a"); err == nil {
			t.Error("a client without a certificate is served")
		}
	})

	t.Run("stop of the leader", func(t *testing.T) {
		// A watch must not hold up the stop, nor end with it.
		events := cli.Watch(clientv3.WithRequireLeader(ctx), "/a", clientv3.WithCreatedNotify())
		<-events
		var leader *member
		await(t, "a leader", func() bool {
			for _, m := range c.members {
				if m.logs.FilterMessage("This member leads etcd").Len() > 0 {
					leader = m
				}
			}
			return leader != nil
		})
		began := time.Now()
		if err := leader.stop(); err != nil {
			t.Fatal(err)
		}
		// A watch that held it up would do so for seven seconds.
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the member took %s to stop", took)
		}
		if got := leader.status(t); got != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("a stopped member is %s", got)
		}
		write("2")
		for resp := range events {
			if err := resp.Err(); err != nil {
				t.Fatal(err)
			}
			if len(resp.Events) > 0 {
				break
			}
		}
		c.start(leader)
		await(t, "the member's return", func() bool { return leader.status(t) == healthpb.HealthCheckResponse_SERVING })
	})

	t.Run("no quorum", func(t *testing.T) {
		for _, m := range c.members[1:] {
			if err := m.stop(); err != nil {
				t.Fatal(err)
			}
		}
		left := c.members[0]
		await(t, "NOT_SERVING", func() bool { return left.status(t) == healthpb.HealthCheckResponse_NOT_SERVING })
		for _, m := range c.members[1:] {
			c.start(m)
		}
		await(t, "SERVING", func() bool { return left.status(t) == healthpb.HealthCheckResponse_SERVING })
	})
}

func TestOutOfSpace(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.QuotaBytes = 64 << 20 })
	cli := c.client(c.trusted())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		_, err = cli.Put(ctx, fmt.Sprint("/", i), strings.Repeat("x", 1<<20))
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("error is %v, want that of a full database", err)
	}
	m := c.members[0]
	await(t, "NOT_SERVING", func() bool { return m.status(t) == healthpb.HealthCheckResponse_NOT_SERVING })
	if m.logs.FilterMessageSnippet("reached its quota").Len() != 1 {
		t.Errorf("the log does not say once that the quota is reached: %v", m.logs.All())
	}
}

func TestRunFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := DefaultConfig()
	cfg.Name, cfg.DataDir = "m", filepath.Join(memoryDir(t), "m")
	cfg.PeerURL, cfg.ClientURL = "http://"+loopbacktest.Address(t).String(), "http://"+l.Addr().String()
	cfg.InitialCluster, cfg.MetricsURL = []string{"m=" + cfg.PeerURL}, ""
	s, err := New(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Run on an address in use gives %v", err)
	}
}

func TestValidate(t *testing.T) {
	valid := func() Config {
		cfg := DefaultConfig()
		cfg.Name, cfg.DataDir = "a", "/var/lib/xebec/etcd"
		cfg.PeerURL, cfg.ClientURL = "https://10.0.0.1:2380", "https://10.0.0.1:2379"
		cfg.Peer = pki.Files{CA: "ca", Cert: "cert", Key: "key"}
		cfg.Client = cfg.Peer
		cfg.InitialCluster = []string{"a=https://10.0.0.1:2380", "b=https://10.0.0.2:2380"}
		return cfg
	}
	cfg := valid()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no name":            {func(c *Config) { c.Name = "" }, "name: must be given"},
		"relative directory": {func(c *Config) { c.DataDir = "data" }, "dataDir: must be an absolute path"},
		"no port":            {func(c *Config) { c.ClientURL = "https://10.0.0.1" }, "clientURL: "},
		"no TLS":             {func(c *Config) { c.ClientURL = "http://10.0.0.1:2379" }, "clientURL: http://10.0.0.1:2379 must be https"},
		"no certificates":    {func(c *Config) { c.Peer = pki.Files{} }, "peerURL: https://10.0.0.1:2380 needs certificates"},
		"half an identity":   {func(c *Config) { c.Peer.Key = "" }, "peer: cert, key and ca must be given together"},
		"not a member":       {func(c *Config) { c.Name = "z" }, "initialCluster: does not have this member, z"},
		"other address":      {func(c *Config) { c.PeerURL = "https://10.0.0.9:2380" }, "initialCluster: has a at https://10.0.0.1:2380"},
		"twice":              {func(c *Config) { c.InitialCluster = append(c.InitialCluster, c.InitialCluster[1]) }, "b occurs twice"},
		"bad member":         {func(c *Config) { c.InitialCluster = append(c.InitialCluster, "c") }, `"c" is not name=peerURL`},
		"tiny quota":         {func(c *Config) { c.QuotaBytes = 1 }, "quotaBytes: "},
		"no history":         {func(c *Config) { c.CompactAfter = 0 }, "compactAfter: "},
		"hasty":              {func(c *Config) { c.Election = c.Heartbeat }, "heartbeat, election: "},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := valid()
			tc.change(&cfg)
			if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %q in it", err, tc.want)
			}
			if _, err := New(cfg, zap.NewNop()); err == nil {
				t.Error("New takes it")
			}
		})
	}
}

func TestRegister(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Name, cfg.DataDir, cfg.PeerURL, cfg.ClientURL = "m", "/x", "http://127.0.0.1:1", "http://127.0.0.1:2"
	cfg.InitialCluster = []string{"m=http://127.0.0.1:1"}
	cfg.MetricsURL = ""
	s, err := New(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	s.Register(server)
	s.Register(server) // must see that health is there
	if _, ok := server.GetServiceInfo()[healthpb.Health_ServiceDesc.ServiceName]; !ok {
		t.Error("health is not registered")
	}
}
