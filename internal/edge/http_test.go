package edge_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
)

// httpSite is a plain net/http server behind an entry. Its handler answers with the caller's name.
// "a.good.token" is the token of service account web.
type httpSite struct {
	t       *testing.T
	cluster *rpctest.Cluster
	tokens  *rpctest.Tokens
	metrics *prometheus.Registry
	address string
}

func newHTTPSite(t *testing.T, cfg edge.Config, httpCfg edge.HTTPConfig, next http.HandlerFunc) *httpSite {
	t.Helper()
	s := &httpSite{t: t, cluster: rpctest.NewCluster(t), metrics: prometheus.NewRegistry()}
	s.tokens = &rpctest.Tokens{Known: func(token string) (edge.Identity, time.Time, error) {
		if token != "a.good.token" {
			return edge.Identity{}, time.Time{}, apierr.New(codes.Unauthenticated, edge.ReasonBadToken, "invalid token")
		}
		return edge.Identity{User: "system:serviceaccount:default:web"}, time.Time{}, nil
	}}
	cfg.Tokens, cfg.Metrics = s.tokens, s.metrics
	entry, err := edge.NewEntry(cfg, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if next == nil {
		next = func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, edge.IdentityFromContext(r.Context()).User)
		}
	}
	server := &http.Server{Handler: entry.Handler(httpCfg, next), ConnContext: entry.ConnContext}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(entry.Listener(inner, s.cluster.Service(t, "apiserver").OptionalServerConfig())); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() {
		entry.Drain()
		_ = server.Close()
		<-done
	})
	s.address = inner.Addr().String()
	return s
}

// client returns a client with the certificate of source, none when that is nil.
func (s *httpSite) client(source *pki.Source) *http.Client {
	s.t.Helper()
	if source == nil {
		var err error
		if source, err = pki.NewTrustSource(s.cluster.CA.CertPEM()); err != nil {
			s.t.Fatal(err)
		}
	}
	config := source.ClientConfig(pki.AnyServer)
	config.NextProtos = nil // the transport sets those that it speaks
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

type answer struct {
	code   int
	proto  string
	header http.Header
	body   string
}

// reason returns the reason of a Status object.
func (a answer) reason() string {
	var status struct{ Kind, Reason string }
	if json.Unmarshal([]byte(a.body), &status) != nil || status.Kind != "Status" {
		return "no Status object: " + a.body
	}
	return status.Reason
}

// get makes a request with headers in pairs.
func (s *httpSite) get(client *http.Client, headers ...string) (answer, error) {
	return s.do(client, http.MethodGet, nil, headers...)
}

func (s *httpSite) do(client *http.Client, method string, body io.Reader, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), method, "https://"+s.address+"/", body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Proto, resp.Header, string(text)}, err
}

func (s *httpSite) gauge(name string) float64 { return metricstest.Values(s.t, s.metrics, name)[""] }

func (s *httpSite) await(what string, holds func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			s.t.Fatalf("timeout: want that %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestHTTPRequiresCredentials makes requests with and without certificates and tokens to a net/http
// server: only authenticated ones reach the handler.
func TestHTTPRequiresCredentials(t *testing.T) {
	var reached []string
	s := newHTTPSite(t, edge.Config{}, edge.HTTPConfig{}, func(w http.ResponseWriter, r *http.Request) {
		user := edge.IdentityFromContext(r.Context()).User
		reached = append(reached, user)
		_, _ = io.WriteString(w, user)
	})
	anonymous := s.client(nil)
	for name, tt := range map[string]struct {
		headers []string
		code    int
		reason  string
	}{
		"nothing":                {nil, 401, "Unauthorized"},
		"an invalid token":       {[]string{"Authorization", "Bearer a.bad.token"}, 401, "Unauthorized"},
		"another scheme":         {[]string{"Authorization", "Basic YTpi"}, 401, "Unauthorized"},
		"a forged identity":      {[]string{"Authorization", "Bearer a.good.token", "X-Xebec-User", "admin"}, 403, "Forbidden"},
		"an invalid request id":  {[]string{"Authorization", "Bearer a.good.token", "X-Request-Id", "a b"}, 400, "BadRequest"},
		"two request ids":        {[]string{"Authorization", "Bearer a.good.token", "X-Request-Id", "a", "X-Request-Id", "b"}, 400, "BadRequest"},
		"a forged identity only": {[]string{"X-Xebec-User", "admin"}, 403, "Forbidden"},
	} {
		got, err := s.get(anonymous, tt.headers...)
		if err != nil || got.code != tt.code || got.reason() != tt.reason {
			t.Errorf("%s: %d %s, %v, want %d %s", name, got.code, got.body, err, tt.code, tt.reason)
		}
		if len(got.header.Get("X-Request-Id")) != 32 {
			t.Errorf("%s: request id %q, want a new one", name, got.header.Get("X-Request-Id"))
		}
	}
	foreign := rpctest.NewCluster(t).Admin(t)
	config := foreign.ClientConfig(pki.AnyServer)
	config.VerifyConnection = nil
	if got, err := s.get(&http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: time.Minute}); err == nil {
		t.Errorf("a certificate of another cluster: %d %s", got.code, got.body)
	}
	if resp, err := http.Get("http://" + s.address + "/"); err == nil {
		t.Errorf("without TLS: %s", resp.Status)
		resp.Body.Close()
	}
	if len(reached) > 0 {
		t.Errorf("the handler was called by %q", reached)
	}

	got, err := s.get(anonymous, "Authorization", "Bearer a.good.token", "X-Request-Id", "ann-1")
	if err != nil || got.code != 200 || got.body != "system:serviceaccount:default:web" || got.header.Get("X-Request-Id") != "ann-1" {
		t.Errorf("with a token: %v, %v", got, err)
	}
	got, err = s.get(s.client(s.cluster.Admin(t)))
	if err != nil || got.code != 200 || got.body != "admin" || got.proto != "HTTP/2.0" {
		t.Errorf("with a certificate: %v, %v", got, err)
	}
}

// TestHTTPAccessList refuses a connection before its handshake.
func TestHTTPAccessList(t *testing.T) {
	s := newHTTPSite(t, edge.Config{Admit: func(net.Conn) error { return errors.New("not in the list") }}, edge.HTTPConfig{}, nil)
	if got, err := s.get(s.client(s.cluster.Admin(t))); err == nil {
		t.Errorf("a connection that the access list denies: %v", got)
	}
}

// TestHTTPFlow fills the only seat of a priority level: the next request waits, and one more than
// the queue holds gets 429 with Retry-After.
func TestHTTPFlow(t *testing.T) {
	working, release := make(chan struct{}, 3), make(chan struct{})
	s := newHTTPSite(t, edge.Config{Fairness: fairness.Config{Seats: fairness.MinSeats, Queues: fairness.Queues{PerCaller: 1, MaxWait: time.Minute}}},
		edge.HTTPConfig{}, func(http.ResponseWriter, *http.Request) {
			working <- struct{}{}
			<-release
		})
	client := s.client(s.cluster.Admin(t))
	answers := make(chan error, 2)
	request := func() {
		got, err := s.get(client)
		if err == nil && got.code != 200 {
			err = fmt.Errorf("%d %s", got.code, got.body)
		}
		answers <- err
	}
	go request()
	<-working
	go request()
	s.await("the second request waits", func() bool { return metricstest.Values(t, s.metrics, metrics.RPCQueue)["people"] == 1 })
	got, err := s.get(client)
	if err != nil || got.code != 429 || got.reason() != "TooManyRequests" || got.header.Get("Retry-After") == "" {
		t.Errorf("the third request: %v, %v", got, err)
	}
	if !strings.Contains(got.body, "retryAfterSeconds") {
		t.Errorf("the Status object %s lacks the time to wait", got.body)
	}
	select {
	case <-working:
		t.Error("the second request did not wait")
	default:
	}
	close(release)
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// TestHTTPRate makes a request more than a caller may.
func TestHTTPRate(t *testing.T) {
	rates := func(edge.Identity) edge.Rates { return edge.Rates{PerSecond: 0.1, Burst: 1} }
	s := newHTTPSite(t, edge.Config{Rates: rates}, edge.HTTPConfig{}, nil)
	client := s.client(s.cluster.Admin(t))
	if got, err := s.get(client); err != nil || got.code != 200 {
		t.Fatal(got, err)
	}
	if got, err := s.get(client); err != nil || got.code != 429 || got.header.Get("Retry-After") == "" {
		t.Errorf("the second request: %v, %v", got, err)
	}
}

// TestHTTPHandshakeLimit opens more connections without handshakes than one source may.
func TestHTTPHandshakeLimit(t *testing.T) {
	s := newHTTPSite(t, edge.Config{Limits: edge.Limits{
		PendingConnectionsPerSource: 1, WaitingConnectionsPerSource: 1, HandshakeTimeout: time.Minute, WaitTimeout: time.Minute,
	}}, edge.HTTPConfig{}, nil)
	ended := make(chan error)
	var idle []net.Conn
	for range 8 {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			ended <- err
		}()
	}
	if err := <-ended; err == nil {
		t.Error("an idle connection received data")
	}
	if closed := metricstest.Values(t, s.metrics, metrics.RPCConnectionsClosed); closed[edge.ClosedPending] < 1 {
		t.Errorf("closed connections: %v, want at least one by the limit", closed)
	}
	for _, conn := range idle {
		_ = conn.Close()
	}
	for range len(idle) - 1 {
		<-ended
	}
	s.await("the idle connections are gone", func() bool {
		return s.gauge(metrics.RPCPendingConnections)+s.gauge(metrics.RPCWaitingConnections) == 0
	})
	if got, err := s.get(s.client(s.cluster.Admin(t))); err != nil || got.code != 200 {
		t.Errorf("a caller with a certificate: %v, %v", got, err)
	}
}

// TestHTTPIdleConnections leaves a connection idle after its handshake, without credentials.
func TestHTTPIdleConnections(t *testing.T) {
	s := newHTTPSite(t, edge.Config{Limits: edge.Limits{HandshakeTimeout: time.Second}}, edge.HTTPConfig{}, nil)
	conn, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an idle connection: %v, want that the server closes it", err)
	}
}

// TestHTTPRevokedToken revokes the token of a long-running request: the request's context ends.
func TestHTTPRevokedToken(t *testing.T) {
	began, cause := make(chan struct{}), make(chan error, 1)
	s := newHTTPSite(t, edge.Config{}, edge.HTTPConfig{IsLongRunning: func(*http.Request) bool { return true }}, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		cause <- context.Cause(r.Context())
	})
	answered := make(chan error, 1)
	go func() {
		_, err := s.get(s.client(nil), "Authorization", "Bearer a.good.token")
		answered <- err
	}()
	<-began
	s.tokens.Revoke(apierr.New(codes.Unauthenticated, edge.ReasonBadToken, "invalid token: its pod is gone"))
	if err := <-cause; apierr.Reason(err) != edge.ReasonBadToken {
		t.Errorf("the request ended with %v", err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if got, err := s.get(s.client(nil), "Authorization", "Bearer a.good.token"); err != nil || got.code != 401 {
		t.Errorf("a request with a revoked token: %v, %v", got, err)
	}
}

// TestHTTPSlowBody sends part of a body and no more.
func TestHTTPSlowBody(t *testing.T) {
	s := newHTTPSite(t, edge.Config{Limits: edge.Limits{ReceiveTimeout: 100 * time.Millisecond}}, edge.HTTPConfig{},
		func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				edge.WriteError(w, err)
			}
		})
	body, send := io.Pipe()
	defer send.Close()
	go func() { _, _ = send.Write([]byte("part")) }()
	got, err := s.do(s.client(s.cluster.Admin(t)), http.MethodPost, body)
	if err != nil || got.code != 504 || got.reason() != "Timeout" {
		t.Errorf("a request that does not arrive: %v, %v", got, err)
	}
}
