package listener

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// site is a server at a set of listeners, whose public listener trusts loopback to be a load
// balancer: so a test can come from anywhere.
type site struct {
	t               *testing.T
	set             *Set
	cluster         *rpctest.Cluster
	logs            *observer.ObservedLogs
	metrics         *prometheus.Registry
	private, public string
	ctx             context.Context
}

func newSite(t *testing.T, cfg Config) *site {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	s := &site{t: t, cluster: rpctest.NewCluster(t), logs: logs, metrics: prometheus.NewRegistry()}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cfg.Public.Listen = "127.0.0.1:0"
	cfg.Public.Proxies = []string{"127.0.0.0/8"}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.set, err = New(cfg, zap.New(core), s.metrics); err != nil {
		t.Fatal(err)
	}
	server := rpc.ServerConfig{TLS: s.cluster.Service(t, "gateway"), Admit: s.set.Admit, DrainLimit: 50 * time.Millisecond,
		Authorize: func(context.Context, edge.Identity, string) error { return nil },
		Listeners: func(private net.Listener) ([]net.Listener, error) {
			all, err := s.set.Listeners(private)
			if err == nil {
				s.public = all[1].Addr().String()
			}
			return all, err
		}}
	s.private, _ = s.cluster.Serve(t, server, func(grpc.ServiceRegistrar) {})
	return s
}

// dial connects by a load balancer that names the source.
func (s *site) dial(source string) healthpb.HealthClient {
	s.t.Helper()
	dialer := func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		_, err = s.header(source).WriteTo(conn)
		return conn, err
	}
	conn := s.cluster.Dial(s.t, s.public, s.cluster.Admin(s.t), rpc.ClientConfig{ServerUser: "xebec:gateway", Options: []grpc.DialOption{
		grpc.WithContextDialer(dialer), grpc.WithDisableHealthCheck()}})
	return healthpb.NewHealthClient(conn)
}

func (s *site) header(source string) *proxyproto.Header {
	if source == "" {
		return &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	}
	from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 40000))
	to := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 6443}
	if from.IP.To4() == nil {
		to.IP = net.ParseIP("2001:db8::1")
	}
	return proxyproto.HeaderProxyFromAddrs(2, from, to)
}

func (s *site) check(client healthpb.HealthClient) error {
	_, err := client.Check(s.ctx, &healthpb.HealthCheckRequest{})
	return err
}

func (s *site) count(listener, result string) float64 {
	return metricstest.Values(s.t, s.metrics, metrics.GatewayConnections)[listener+","+result]
}

func (s *site) open(listener string) float64 {
	return metricstest.Values(s.t, s.metrics, metrics.GatewayOpenConnections)[listener]
}

// await waits until something holds.
func (s *site) await(what string, holds func() bool) {
	s.t.Helper()
	for !holds() {
		if s.ctx.Err() != nil {
			s.t.Fatalf("%s: not in time", what)
		}
	}
}

func TestAdmits(t *testing.T) {
	s := newSite(t, Config{Public: PublicConfig{ListenerConfig: ListenerConfig{Allow: []string{"203.0.113.0/24", "2001:db8::/48"}}}})
	for source, want := range map[string]codes.Code{
		"203.0.113.9": codes.OK, "2001:db8::9": codes.OK, "198.51.100.1": codes.Unavailable, "2001:db8:1::9": codes.Unavailable,
		"127.0.0.1": codes.OK, // as a master's own
		"":          codes.OK, // the load balancer itself
	} {
		if err := s.check(s.dial(source)); status.Code(err) != want {
			t.Errorf("from %q: %v, want %v", source, err, want)
		}
	}
	if s.count(Public, resultAdmitted) < 4 || s.count(Public, resultDenied) < 2 {
		t.Errorf("counted %v admitted, %v denied", s.count(Public, resultAdmitted), s.count(Public, resultDenied))
	}
	denied := s.logs.FilterMessage("Denied a connection by the access list").FilterField(zap.String("listener", Public))
	if denied.Len() == 0 || denied.All()[0].ContextMap()["peer"] == "127.0.0.1" {
		t.Errorf("the log says %v", denied.All())
	}
	if err := s.check(healthpb.NewHealthClient(s.cluster.Dial(t, s.private, s.cluster.Admin(t), rpc.ClientConfig{ServerUser: "xebec:gateway"}))); err != nil {
		t.Errorf("at the private listener: %v", err)
	}
}

// TestDeniedLearnNothing: not a byte comes back, and the log is bounded however many come.
func TestDeniedLearnNothing(t *testing.T) {
	s := newSite(t, Config{Public: PublicConfig{ListenerConfig: ListenerConfig{Allow: []string{"203.0.113.0/24"}}}})
	const connections = 60
	for range connections {
		conn, err := net.Dial("tcp", s.public)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.header("198.51.100.1").WriteTo(conn); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
		_ = conn.Close()
	}
	if got := s.count(Public, resultDenied); got != connections {
		t.Errorf("counted %v denied, want %d", got, connections)
	}
	if got := s.logs.FilterMessage("Denied a connection by the access list").Len(); got < 1 || got > 20 {
		t.Errorf("%d lines in the log", got)
	}
}

func TestProxyHeaders(t *testing.T) {
	s := newSite(t, Config{})
	t.Run("without one a load balancer is refused", func(t *testing.T) {
		plain := s.cluster.Dial(t, s.public, s.cluster.Admin(t), rpc.ClientConfig{ServerUser: "xebec:gateway"})
		if err := s.check(healthpb.NewHealthClient(plain)); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
		if s.logs.FilterMessageSnippet("send-proxy-v2").FilterLevelExact(zapcore.WarnLevel).Len() == 0 || s.count(Public, resultProxy) == 0 {
			t.Error("the log and the counter lack it")
		}
	})
	t.Run("a check of the port is not logged", func(t *testing.T) {
		for _, address := range []string{s.public, s.private} {
			before := s.logs.FilterLevelExact(zapcore.DebugLevel).Len()
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			s.logs.TakeAll()
			_ = conn.Close()
			if address == s.public {
				s.await("the debug log", func() bool { return s.logs.FilterMessageSnippet("checked the port").Len() > 0 })
			}
			if news := s.logs.Filter(func(e observer.LoggedEntry) bool { return e.Level > zapcore.DebugLevel }); news.Len() > 0 {
				t.Errorf("%s: %v (%d before)", address, news.All(), before)
			}
		}
	})
	t.Run("a stranger's header counts for nothing", func(t *testing.T) {
		conn, err := net.Dial("tcp", s.private)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := s.header("203.0.113.9").WriteTo(conn); err != nil {
			t.Fatal(err)
		}
		// It is taken for a handshake, and a bad one.
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
	})
	t.Run("slow clients delay only themselves", func(t *testing.T) {
		conn, err := net.Dial("tcp", s.public)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := s.check(s.dial("203.0.113.9")); err != nil {
			t.Error(err)
		}
	})
}

func access(private, public *gatewayv1.ListenerAccess) *gatewayv1.GatewayAccess {
	return &gatewayv1.GatewayAccess{Metadata: &metav1.ObjectMeta{Name: "cluster"}, Spec: &gatewayv1.GatewayAccessSpec{Private: private, Public: public}}
}

func TestChangeCuts(t *testing.T) {
	s := newSite(t, Config{})
	watch := func(source string) healthpb.Health_WatchClient {
		t.Helper()
		stream, err := s.dial(source).Watch(s.ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	stays, goes, master := watch("203.0.113.9"), watch("198.51.100.1"), watch("127.0.0.1")
	if open := s.open(Public); open != 3 {
		t.Errorf("%v connections are open, want 3", open)
	}
	s.set.change(s.set.from(access(nil, &gatewayv1.ListenerAccess{AllowedCidrs: []string{"203.0.113.0/24"}}), FromObject))
	if _, err := goes.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream of a source that is no longer admitted: %v", err)
	}
	if err := s.check(s.dial("198.51.100.1")); status.Code(err) != codes.Unavailable {
		t.Errorf("a new connection from there: %v", err)
	}
	if got := s.count(Public, resultCut); got != 1 {
		t.Errorf("%v were cut, want 1", got)
	}
	s.set.change(s.set.from(access(nil, &gatewayv1.ListenerAccess{Enabled: proto.Bool(false)}), FromObject))
	if _, err := stays.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a stream at a closed listener: %v", err)
	}
	if err := s.check(s.dial("127.0.0.1")); err != nil {
		t.Errorf("a master at a closed listener: %v", err)
	}
	s.set.change(s.set.configured())
	if err := s.check(s.dial("198.51.100.1")); err != nil {
		t.Errorf("after the list is gone: %v", err)
	}
	if master.Context().Err() != nil {
		t.Error("the master was cut off")
	}
	// The three above, and the three of the checks: those that were cut or denied come back by
	// themselves.
	s.await("one connection open per client", func() bool { return s.open(Public) == 6 })
}

// TestLeave: load balancers notice before anything changes for their clients.
func TestLeave(t *testing.T) {
	s := newSite(t, Config{})
	if err := s.check(s.dial("")); err != nil {
		t.Fatal("a load balancer's check: ", err)
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		s.set.Leave()
	}()
	s.await("it begins to leave", func() bool {
		s.set.mu.Lock()
		defer s.set.mu.Unlock()
		return s.set.left != nil
	})
	for failed := range enoughChecks {
		select {
		case <-left:
			t.Fatalf("it left after %d failed checks", failed)
		default:
		}
		if err := s.check(s.dial("203.0.113.9")); err != nil {
			t.Fatal("a client's call meanwhile: ", err)
		}
		conn, err := net.Dial("tcp", s.public)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.header("").WriteTo(conn); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("a check while it leaves reads %d bytes, %v", n, err)
		}
		_ = conn.Close()
	}
	select {
	case <-left:
	case <-s.ctx.Done():
		t.Fatal("it does not leave although the load balancer has noticed")
	}
	if err := s.check(s.dial("203.0.113.9")); err != nil {
		t.Error("a client that comes late: ", err)
	}
	// The check of a load balancer that comes now fails as well.
	for range enoughChecks {
		if !s.set.checkFails(netip.MustParseAddr("192.0.2.22")) {
			t.Error("a late load balancer finds a gateway that is well")
		}
	}
}

func TestChecksFailBeforeTheGatewayTakesCalls(t *testing.T) {
	set, err := New(Config{}, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	balancer := netip.MustParseAddr("192.0.2.21")
	ready := make(chan struct{})
	set.OpenWhen(ready)
	if !set.checkFails(balancer) {
		t.Error("a gateway that starts looks well to a load balancer")
	}
	close(ready)
	if set.checkFails(balancer) {
		t.Error("a gateway that takes calls does not")
	}
}

func TestLeaveWaitsForThoseThatAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			ago, want time.Duration
		}{{-1, 0}, {recently + time.Second, 0}, {time.Second, leaveLimit}} {
			set, err := New(Config{}, zap.NewNop(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.ago >= 0 {
				set.checkFails(netip.MustParseAddr("192.0.2.21"))
				<-time.After(tt.ago)
			}
			began := time.Now()
			set.Leave()
			if took := time.Since(began); took != tt.want {
				t.Errorf("%s after the last check it took %s, want %s", tt.ago, took, tt.want)
			}
		}
	})
}

func TestKeep(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway", "access.json")
	cfg := Config{Keep: file, Private: ListenerConfig{Allow: []string{"10.0.0.0/8"}}}
	start := func() *Set {
		t.Helper()
		set, err := New(cfg, zap.NewNop(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	set := start()
	if state := set.State(); state.From != FromConfig || state.Private.Allowed.Strings()[0] != "10.0.0.0/8" {
		t.Errorf("starts by %v", state)
	}
	set.keep(access(&gatewayv1.ListenerAccess{AllowedCidrs: []string{"192.0.2.0/24"}}, nil))
	if state := start().State(); state.From != FromKept || state.Private.Allowed.Strings()[0] != "192.0.2.0/24" {
		t.Errorf("starts again by %v", state)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if state := start().State(); state.From != FromConfig {
		t.Errorf("starts from a spoilt file by %v", state)
	}
	set.keep(nil)
	set.keep(nil)
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file stays: %v", err)
	}
	// A list that no apiserver would accept admits no source.
	if rule := set.from(access(&gatewayv1.ListenerAccess{AllowedCidrs: []string{"nonsense"}}, nil), FromObject).private; rule.Admits(netip.MustParseAddr("10.0.0.1")) {
		t.Error("nonsense admits everyone")
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, ""},
		{Config{Public: PublicConfig{Listen: ":6444", ListenerConfig: ListenerConfig{Allow: []string{"0.0.0.0/0"}}}, Private: ListenerConfig{Closed: true}}, ""},
		{Config{Private: ListenerConfig{Allow: []string{"10.0.0.1/8"}}}, `access.private.allow: [0] "10.0.0.1/8": has host bits set`},
		{Config{Public: PublicConfig{Listen: "a:1", ListenerConfig: ListenerConfig{Proxies: []string{"10.0.0.1"}}}}, "access.public.proxies: [0]"},
		{Config{Public: PublicConfig{Listen: "6444"}}, "access.public.listen: "},
		{Config{Public: PublicConfig{ListenerConfig: ListenerConfig{Allow: []string{"10.0.0.0/8"}}}}, "access.public.listen: required"},
		{Config{Private: ListenerConfig{Closed: true}}, "one listener must take connections"},
		{Config{Private: ListenerConfig{Closed: true, Allow: []string{"10.0.0.0/8"}}, Public: PublicConfig{Listen: ":1"}}, "must be empty where"},
	} {
		err := tt.cfg.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
}
