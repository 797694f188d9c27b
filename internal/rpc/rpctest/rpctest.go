// Package rpctest makes certificates, servers and connections of a throwaway cluster for tests. All
// of it is the real thing on the loopback interface: TLS, identity and interceptors are those of
// production.
package rpctest

import (
	"context"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
)

// Cluster is an authority and what it signed.
type Cluster struct {
	CA *pki.CA
	// Log, when not nil, is the log of the servers instead of the test's.
	Log *zap.Logger
}

// NewCluster makes a cluster with an authority of its own.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	ca, err := pki.CreateCA("test cluster", 0)
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{CA: ca}
}

// Source returns a new certificate as a server or client uses it.
func (c *Cluster) Source(t testing.TB, req pki.Request) *pki.Source {
	t.Helper()
	pair, err := c.CA.Issue(req)
	if err != nil {
		t.Fatal(err)
	}
	source, err := pki.NewMemorySource(c.CA.CertPEM(), pair)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// Service returns the certificate of a control-plane service.
func (c *Cluster) Service(t testing.TB, name string) *pki.Source {
	t.Helper()
	return c.Source(t, pki.ServiceRequest(name, "localhost"))
}

// Admin returns the certificate of someone who may do everything.
func (c *Cluster) Admin(t testing.TB) *pki.Source {
	t.Helper()
	return c.Source(t, pki.AdminRequest("admin"))
}

// Serve runs a server until stop is called or the test ends, and returns its address. Empty fields
// of cfg are filled: Listen with a free loopback port, TLS with the certificate of service
// "apiserver".
func (c *Cluster) Serve(t testing.TB, cfg rpc.ServerConfig, register func(grpc.ServiceRegistrar)) (address string, stop func()) {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.TLS == nil {
		cfg.TLS = c.Service(t, "apiserver")
	}
	if cfg.DrainDelay == 0 {
		cfg.DrainDelay = -1
	}
	log := c.Log
	if log == nil {
		log = zaptest.NewLogger(t)
	}
	server, err := rpc.NewServer(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	register(server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(ctx); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return server.Addr().String(), stop
}

// Dial connects to servers made by Serve as the holder of tls. Their certificate must be that of
// service "apiserver" unless cfg says otherwise.
func (c *Cluster) Dial(t testing.TB, target string, tls *pki.Source, cfg rpc.ClientConfig) *grpc.ClientConn {
	t.Helper()
	cfg.TLS = tls
	if cfg.ServerUser == "" {
		cfg.ServerUser = pki.ServiceUser("apiserver")
	}
	conn, err := rpc.Dial(target, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
