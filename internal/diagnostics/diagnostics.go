// Package diagnostics serves what a process tells about itself, its metrics and on demand its
// profiles, by HTTPS to callers with a client certificate of the cluster's authority. A loopback
// address alone protects nothing: pods on the host's network reach it.
package diagnostics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/xebec-project/xebec/internal/pki"
)

// Off, for an address, serves nothing.
const Off = "off"

// Config says what is served.
type Config struct {
	// Gatherer holds the metrics.
	Gatherer prometheus.Gatherer
	// TLS is the process's own identity. Its own certificate may read everything, as administrators
	// may.
	TLS *pki.Source
	// Profiles serves /debug/pprof/ as well.
	Profiles bool
}

// Server serves at one address. The nil server serves nothing.
type Server struct {
	cfg      Config
	listener net.Listener
}

// Listen listens at an address; for Off, and for none, it returns nil.
func Listen(address string, cfg Config) (*Server, error) {
	if address == Off || address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	return &Server{cfg, listener}, nil
}

// Close releases the address of a server that is never served.
func (s *Server) Close() {
	if s != nil {
		_ = s.listener.Close()
	}
}

// The limits of a connection. Profiles take as long as they are asked to.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
)

// Serve serves until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	if s == nil {
		return nil
	}
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// Anybody on the host could fill the log with failed handshakes.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(tls.NewListener(s.listener, tlsConfig(s.cfg.TLS))); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// tlsConfig is that of the process's gRPC server, which demands a client certificate, but for
// HTTP/1.1.
func tlsConfig(source *pki.Source) *tls.Config {
	ofRPC := source.ServerConfig()
	config := ofRPC.Clone()
	config.NextProtos = []string{"http/1.1"}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		current, err := ofRPC.GetConfigForClient(hello)
		if err != nil {
			return nil, err
		}
		current = current.Clone()
		current.NextProtos = []string{"http/1.1"}
		return current, nil
	}
	return config
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(
		"GET /metrics",
		s.allow(promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{}).ServeHTTP, pki.GroupServices, pki.GroupMonitors),
	)
	if s.cfg.Profiles {
		// They show memory: what monitors may not read could be in it.
		mux.HandleFunc("GET /debug/pprof/", s.allow(pprof.Index))
		mux.HandleFunc("GET /debug/pprof/profile", s.allow(pprof.Profile))
		mux.HandleFunc("GET /debug/pprof/symbol", s.allow(pprof.Symbol))
		mux.HandleFunc("GET /debug/pprof/trace", s.allow(pprof.Trace))
	}
	return mux
}

// allow lets administrators, the process itself and the members of groups through.
func (s *Server) allow(next http.HandlerFunc, groups ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		leaf := r.TLS.VerifiedChains[0][0]
		switch {
		case time.Now().After(leaf.NotAfter):
			http.Error(w, "the client certificate has expired since the connection was made", http.StatusUnauthorized)
		case !s.may(leaf, groups):
			http.Error(
				w,
				fmt.Sprintf("%q may not read this: it needs group %s", leaf.Subject.CommonName, append(groups, pki.GroupMasters)),
				http.StatusForbidden,
			)
		default:
			next(w, r)
		}
	}
}

func (s *Server) may(leaf *x509.Certificate, groups []string) bool {
	of := leaf.Subject.Organization
	return slices.Contains(of, pki.GroupMasters) || leaf.Subject.CommonName == s.cfg.TLS.Leaf().Subject.CommonName ||
		slices.ContainsFunc(groups, func(group string) bool { return slices.Contains(of, group) })
}
