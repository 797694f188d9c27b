package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/edge/edgetest"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

const almost = 4<<20 - 1

// tokenSite is a server that takes tokens: "a.good.token" is account web's.
type tokenSite struct {
	t       *testing.T
	cluster *rpctest.Cluster
	tokens  *rpctest.Tokens
	expiry  time.Time // of the token, zero for none
	metrics *prometheus.Registry
	address string
}

func newTokenSite(t *testing.T, limits edge.Limits, api *testAPI) *tokenSite {
	return newTokenSiteWith(t, rpc.ServerConfig{Edge: limits}, api)
}

// newTokenSiteWith is newTokenSite for a server of this configuration.
func newTokenSiteWith(t *testing.T, cfg rpc.ServerConfig, api *testAPI) *tokenSite {
	s := &tokenSite{t: t, cluster: rpctest.NewCluster(t), metrics: prometheus.NewRegistry()}
	s.tokens = &rpctest.Tokens{Known: func(token string) (edge.Identity, time.Time, error) {
		if token != "a.good.token" {
			return edge.Identity{}, time.Time{}, apierr.New(codes.Unauthenticated, edge.ReasonBadToken, "invalid token")
		}
		return edge.Identity{User: "system:serviceaccount:default:web"}, s.expiry, nil
	}}
	cfg.Tokens, cfg.Metrics, cfg.DrainLimit, cfg.Authorize = s.tokens, s.metrics, 50*time.Millisecond, everyone
	s.address, _ = s.cluster.Serve(t, cfg, api.register)
	return s
}

// stranger connects without a certificate.
func (s *tokenSite) stranger() (*edgetest.Conn, error) {
	return edgetest.Dial(testContext(s.t), nil, s.address, &tls.Config{InsecureSkipVerify: true})
}

func (s *tokenSite) mustStranger() *edgetest.Conn {
	s.t.Helper()
	c, err := s.stranger()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// account connects with a token.
func (s *tokenSite) account(token string) clusterv1.ClusterServiceClient {
	return clusterv1.NewClusterServiceClient(s.accountConn(token))
}

func (s *tokenSite) accountConn(token string) *grpc.ClientConn {
	s.t.Helper()
	trust, err := pki.NewTrustSource(s.cluster.CA.CertPEM())
	if err != nil {
		s.t.Fatal(err)
	}
	return s.cluster.Dial(s.t, s.address, trust, rpc.ClientConfig{Options: []grpc.DialOption{
		grpc.WithPerRPCCredentials(rpc.Bearer(token)), grpc.WithDisableHealthCheck()}})
}

func (s *tokenSite) closed(reason string) float64 {
	return metricstest.Values(s.t, s.metrics, metrics.RPCConnectionsClosed)[reason]
}

// await waits until something holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx := testContext(t)
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatal("it did not come to it: " + what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// heap returns the bytes in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// unfinished sends 150 requests that all lack their last byte, and returns how many bytes that made
// the process hold.
func unfinished(t *testing.T, c *edgetest.Conn, headers ...string) int64 {
	t.Helper()
	before := heap()
	ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
	defer cancel()
	var sending sync.WaitGroup
	for range 150 {
		stream, err := c.Open(apiv1.ResourceService_Get_FullMethodName, headers...)
		if err != nil {
			break // the server has had enough of it
		}
		sending.Go(func() { _ = c.Send(ctx, stream, almost, almost-1) })
	}
	sending.Wait()
	return heap() - before
}

// TestUnfinishedRequestsOfStrangers leaves requests unfinished without proving who it is: the
// server has refused them by their headers and holds nothing of them.
func TestUnfinishedRequestsOfStrangers(t *testing.T) {
	s := newTokenSite(t, edge.Limits{}, &testAPI{})
	c := s.mustStranger()
	stream, err := c.Open(apiv1.ResourceService_Get_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Answer(testContext(t), stream)
	if err != nil || answer["grpc-status"] != "16" {
		t.Fatalf("answered %v, %v, want UNAUTHENTICATED before the request is sent", answer, err)
	}
	if held := unfinished(t, c); held > 8<<20 {
		t.Errorf("150 unfinished requests hold %d KiB", held>>10)
	}
	// What such a caller makes of itself in the metrics is bounded.
	other := s.mustStranger()
	if stream, err = other.Open("/thought.up.Service/Method"); err == nil {
		_, err = other.Answer(testContext(t), stream)
	}
	if err != nil {
		t.Fatal(err)
	}
	handled := metricstest.Values(t, s.metrics, metrics.RPCHandled)
	if handled["Unauthenticated,unknown"] == 0 {
		t.Errorf("handled %v, want one of an unknown method", handled)
	}
}

// TestUnfinishedRequestsOfCallers does so with a good token: a bounded number is received at once,
// the rest wait in their streams' windows, other callers are served, and what does not arrive in
// time is given up.
func TestUnfinishedRequestsOfCallers(t *testing.T) {
	api := &testAPI{get: func(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) { return &apiv1.GetResponse{}, nil }}
	s := newTokenSite(t, edge.Limits{ReceivingPerCaller: 4, ReceiveTimeout: 8 * time.Second}, api)
	c := s.mustStranger()
	if held := unfinished(t, c, "authorization", "Bearer a.good.token"); held > 48<<20 {
		t.Errorf("150 unfinished requests hold %d KiB, want four of 4 MiB, and the windows of the rest", held>>10)
	}
	admin := apiv1.NewResourceServiceClient(s.cluster.Dial(t, s.address, s.cluster.Admin(t), rpc.ClientConfig{}))
	if _, err := admin.Get(testContext(t), &apiv1.GetRequest{}); err != nil {
		t.Errorf("another caller: %v", err)
	}
	// Which four are received is not said: on a busy machine they are not the first that were sent.
	answer, err := c.AnyAnswer(testContext(t))
	if err != nil || answer["grpc-status"] != "4" || !strings.Contains(answer["grpc-message"], "did not arrive within") {
		t.Errorf("the first answer is %v, %v", answer, err)
	}
}

// TestIdleConnectionsAreClosed leaves connections idle before and after the handshake.
func TestIdleConnectionsAreClosed(t *testing.T) {
	s := newTokenSite(t, edge.Limits{HandshakeTimeout: time.Second}, &testAPI{})
	client := s.account("a.good.token")
	if _, err := client.WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}); err != nil {
		t.Fatal(err)
	}
	admin := s.cluster.Dial(t, s.address, s.cluster.Admin(t), rpc.ClientConfig{})
	admin.Connect()
	silent, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	idle := s.mustStranger()
	_ = silent.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a connection without a handshake: %v", err)
	}
	select {
	case <-idle.Done():
	case <-testContext(t).Done():
		t.Error("an idle connection stays open")
	}
	await(t, "the metric", func() bool { return s.closed(edge.ClosedTimeout) >= 1 })
	if n := metricstest.Values(t, s.metrics, metrics.RPCPendingConnections)[""]; n != 0 {
		t.Errorf("%v connections are pending", n)
	}
	// Those who have authenticated keep theirs.
	for _, client := range []clusterv1.ClusterServiceClient{client, clusterv1.NewClusterServiceClient(admin)} {
		if _, err := client.WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}); err != nil {
			t.Error(err)
		}
	}
}

// TestFailedCallsCloseTheConnection makes calls with bad tokens until the server has enough, and
// sees that a good token from the same address is served.
func TestFailedCallsCloseTheConnection(t *testing.T) {
	s := newTokenSite(t, edge.Limits{}, &testAPI{})
	c := s.mustStranger()
	for range 40 {
		if _, err := c.Open(clusterv1.ClusterService_WhoAmI_FullMethodName, "authorization", "Bearer a.bad.token"); err != nil {
			break
		}
	}
	select {
	case <-c.Done():
	case <-testContext(t).Done():
		t.Error("the connection stays open")
	}
	if s.closed(edge.ClosedFailures) == 0 {
		t.Error("the metric knows nothing of it")
	}
	if _, err := s.account("a.good.token").WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}); err != nil {
		t.Error(err)
	}
}

// TestHugeHeadersAreRefused sends more headers than a server takes.
func TestHugeHeadersAreRefused(t *testing.T) {
	s := newTokenSite(t, edge.Limits{}, &testAPI{})
	c := s.mustStranger()
	stream, err := c.Open(clusterv1.ClusterService_WhoAmI_FullMethodName, "authorization", "Bearer a.good.token", "x-long", string(bytes.Repeat([]byte("x"), 64<<10)))
	if err != nil {
		return // it hung up before the headers were sent
	}
	if answer, err := c.Answer(testContext(t), stream); err == nil && answer["rst"] == "" {
		t.Errorf("answered %v", answer)
	}
}

// TestConnectionsOfOneCaller opens more than it may; those of others are not affected.
func TestConnectionsOfOneCaller(t *testing.T) {
	s := newTokenSite(t, edge.Limits{ConnectionsPerCaller: 2}, &testAPI{})
	for range 2 {
		if _, err := s.account("a.good.token").WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.account("a.good.token").WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{})
	if apierr.Code(err) != codes.ResourceExhausted || apierr.Reason(err) != edge.ReasonConnections {
		t.Errorf("the third connection: %v", err)
	}
	admin := clusterv1.NewClusterServiceClient(s.cluster.Dial(t, s.address, s.cluster.Admin(t), rpc.ClientConfig{}))
	if _, err := admin.WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}); err != nil {
		t.Errorf("another caller: %v", err)
	}
}

// waiting is a Watch that waits for its end.
func waiting(stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
	if err := stream.Send(&apiv1.WatchResponse{ResourceVersion: "1"}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// openWatch opens a watch and reads its first event.
func openWatch(t *testing.T, conn *grpc.ClientConn) grpc.ServerStreamingClient[apiv1.WatchResponse] {
	t.Helper()
	watch, err := apiv1.NewResourceServiceClient(conn).Watch(testContext(t), &apiv1.WatchRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return watch
}

// TestExpiredCertificate keeps a connection beyond the end of its certificate: the watch on it
// ends, and no call passes.
func TestExpiredCertificate(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	address, _ := cluster.Serve(t, rpc.ServerConfig{DrainLimit: 50 * time.Millisecond}, (&testAPI{watch: waiting}).register)
	req := pki.AdminRequest("brief")
	req.Validity = 3 * time.Second
	conn := cluster.Dial(t, address, cluster.Source(t, req), rpc.ClientConfig{})
	watch := openWatch(t, conn)
	_, err := watch.Recv()
	if apierr.Code(err) != codes.Unauthenticated || apierr.Reason(err) != edge.ReasonExpired {
		t.Errorf("the watch ended with %v, want %s", err, edge.ReasonExpired)
	}
	if _, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}); err == nil {
		t.Error("a call passed with an expired certificate")
	}
}

// TestExpiredToken is the same with a token, and TestRevokedToken with one that is revoked.
func TestExpiredToken(t *testing.T) {
	s := newTokenSite(t, edge.Limits{}, &testAPI{watch: waiting})
	s.expiry = time.Now().Add(2 * time.Second)
	_, err := openWatch(t, s.accountConn("a.good.token")).Recv()
	if apierr.Code(err) != codes.Unauthenticated || apierr.Reason(err) != edge.ReasonExpired {
		t.Errorf("the watch ended with %v, want %s", err, edge.ReasonExpired)
	}
}

func TestRevokedToken(t *testing.T) {
	s := newTokenSite(t, edge.Limits{}, &testAPI{watch: waiting})
	conn := s.accountConn("a.good.token")
	watch := openWatch(t, conn)
	s.tokens.Revoke(apierr.New(codes.Unauthenticated, edge.ReasonBadToken, "invalid token: its pod is gone"))
	if _, err := watch.Recv(); apierr.Reason(err) != edge.ReasonBadToken {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(testContext(t), &clusterv1.WhoAmIRequest{}); apierr.Reason(err) != edge.ReasonBadToken {
		t.Errorf("a call: %v", err)
	}
}
