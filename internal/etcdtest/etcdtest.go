// Package etcdtest runs real etcd members inside a test's own process, on loopback addresses and
// with their data in memory, so that tests meet etcd's own behaviour: conflicts, compaction, lost
// leaders.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/loopbacktest"
)

const (
	// Members elect fast, for tests that kill leaders; a busy machine still holds a heartbeat of a
	// tenth.
	tick     = 50 * time.Millisecond
	election = 500 * time.Millisecond

	maxTxnOps       = 10240
	maxRequestBytes = 4 << 20

	// Within which a member must be up, a leader elected, a member stopped.
	patience = 30 * time.Second
)

// Option changes the configuration of every member.
type Option func(*embed.Config)

// Quota limits the size of the database.
func Quota(bytes int64) Option {
	return func(cfg *embed.Config) { cfg.QuotaBackendBytes = bytes }
}

// Cluster is a running etcd. Its methods must be called from the test's goroutine.
type Cluster struct {
	tb      testing.TB
	members []*Member
	options []Option
}

// Member is one member of a cluster.
type Member struct {
	cluster    *Cluster
	name, dir  string
	peer       string // URL
	client     string // URL
	etcd       *embed.Etcd
	endStreams context.CancelFunc
}

// New starts a cluster of the given number of members and waits until it has a leader. The cluster
// ends with the test.
func New(tb testing.TB, members int, options ...Option) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb, options: options}
	root := dataDir(tb)
	for i := range members {
		name := fmt.Sprintf("member-%d", i+1)
		c.members = append(c.members, &Member{
			cluster: c, name: name, dir: filepath.Join(root, name), peer: newURL(tb), client: newURL(tb),
		})
	}
	tb.Cleanup(func() {
		for _, m := range c.members {
			m.stop()
		}
	})
	// Each waits for a quorum of the others, so they start together.
	var wg sync.WaitGroup
	errs := make([]error, members)
	for i, m := range c.members {
		wg.Go(func() { errs[i] = m.start() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		tb.Fatalf("start etcd: %v", err)
	}
	c.Leader()
	return c
}

// dataDir makes a directory in memory where there is one: what is tested is not the disk.
func dataDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "xebec-etcdtest-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newURL returns a URL on loopback that stays the member's while it is down.
func newURL(tb testing.TB) string {
	tb.Helper()
	return "http://" + loopbacktest.Address(tb).String()
}

func (m *Member) start() error {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = m.name, m.dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = urls(m.peer), urls(m.peer)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = urls(m.client), urls(m.client)
	var initial []string
	for _, other := range m.cluster.members {
		initial = append(initial, other.name+"="+other.peer)
	}
	cfg.InitialCluster = strings.Join(initial, ",")
	cfg.InitialClusterToken = m.cluster.tb.Name()
	cfg.TickMs, cfg.ElectionMs = uint(tick.Milliseconds()), uint(election.Milliseconds())
	cfg.MaxTxnOps, cfg.MaxRequestBytes = maxTxnOps, maxRequestBytes
	cfg.UnsafeNoFsync = true // memory does not need it, and nothing here outlives the process
	for _, o := range m.cluster.options {
		o(cfg)
	}
	streams, endStreams := context.WithCancel(context.Background())
	cfg.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainStreamInterceptor(endWith(streams))}
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		endStreams()
		return fmt.Errorf("%s: %w", m.name, err)
	}
	m.etcd, m.endStreams = etcd, endStreams
	select {
	case <-etcd.Server.ReadyNotify():
		return nil
	case err := <-etcd.Err():
		return fmt.Errorf("%s: %w", m.name, err)
	case <-time.After(patience):
		return fmt.Errorf("%s did not become ready in %s", m.name, patience)
	}
}

// endWith returns an interceptor that breaks streams off with done. etcd itself, when it closes,
// waits for its clients to end theirs, which for watches takes seconds.
func endWith(done context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(done, cancel)()
		err := handler(srv, brokenStream{stream, ctx})
		if done.Err() != nil {
			return rpctypes.ErrGRPCStopped
		}
		return err
	}
}

type brokenStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s brokenStream) Context() context.Context { return s.ctx }

func urls(s string) []url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err) // made by newURL
	}
	return []url.URL{*u}
}

func (m *Member) stop() {
	if m.etcd == nil {
		return
	}
	m.endStreams()
	m.etcd.Close()
	m.etcd = nil
}

// Members returns the members.
func (c *Cluster) Members() []*Member { return c.members }

// Leader waits until the running members agree on a leader and returns it.
func (c *Cluster) Leader() *Member {
	c.tb.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(10 * time.Millisecond); time.Now().Before(deadline); <-tick.C {
		if m := c.agreed(); m != nil {
			return m
		}
	}
	c.tb.Fatalf("no leader in %s", patience)
	return nil
}

func (c *Cluster) agreed() *Member {
	var leader *Member
	var id uint64
	for _, m := range c.members {
		if m.etcd == nil {
			continue
		}
		l := m.etcd.Server.Lead()
		if l == 0 || id != 0 && l != id {
			return nil
		}
		id = l
		if uint64(m.etcd.Server.MemberID()) == l {
			leader = m
		}
	}
	return leader
}

// Endpoints returns the client URLs of all members, running or not.
func (c *Cluster) Endpoints() []string {
	var endpoints []string
	for _, m := range c.members {
		endpoints = append(endpoints, m.client)
	}
	return endpoints
}

// Client returns a client of the whole cluster that is closed with the test.
func (c *Cluster) Client() *clientv3.Client { return newClient(c.tb, c.Endpoints()) }

// Client returns a client of this member alone that is closed with the test.
func (m *Member) Client() *clientv3.Client { return newClient(m.cluster.tb, []string{m.client}) }

func newClient(tb testing.TB, endpoints []string) *clientv3.Client {
	tb.Helper()
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(), DialTimeout: patience,
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: time.Second,
		MaxCallSendMsgSize: 2 * maxRequestBytes,
		DialOptions:        []grpc.DialOption{grpc.WithReadBufferSize(64 << 10)},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cli.Close() })
	return cli
}

// Name is the member's name.
func (m *Member) Name() string { return m.name }

// Kill ends the member without handing its leadership over, as a crash would.
func (m *Member) Kill() {
	m.cluster.tb.Helper()
	if m.etcd == nil {
		m.cluster.tb.Fatalf("%s does not run", m.name)
	}
	m.endStreams()
	m.etcd.Server.HardStop()
	m.stop()
}

// Stop ends the member in good order: a leader hands over first.
func (m *Member) Stop() {
	m.cluster.tb.Helper()
	if m.etcd == nil {
		m.cluster.tb.Fatalf("%s does not run", m.name)
	}
	m.stop()
}

// Start starts a member that was killed or stopped, with its data, and waits until it is ready.
func (m *Member) Start() {
	m.cluster.tb.Helper()
	if err := m.start(); err != nil {
		m.cluster.tb.Fatalf("start etcd: %v", err)
	}
}

// Compact drops the history before the current revision and returns that revision.
func (c *Cluster) Compact() int64 {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), patience)
	defer cancel()
	cli := c.Client()
	resp, err := cli.Get(ctx, "/")
	if err != nil {
		c.tb.Fatal(err)
	}
	if _, err := cli.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		c.tb.Fatal(err)
	}
	return resp.Header.Revision
}
