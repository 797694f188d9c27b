package diagnostics_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/loopbacktest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
)

// TestWhoMayRead asks a server with and without profiles as many callers.
func TestWhoMayRead(t *testing.T) {
	cluster := rpctest.NewCluster(t)
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "something"}))
	serve := func(profiles bool) string {
		address := loopbacktest.Address(t).String()
		server, err := diagnostics.Listen(address, diagnostics.Config{Gatherer: registry, TLS: cluster.Source(t, pki.NodeRequest("node-1")), Profiles: profiles})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- server.Serve(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return address
	}
	plain, profiled := serve(false), serve(true)
	const heap = "/debug/pprof/heap"
	for _, tt := range []struct {
		name          string
		as            *pki.Source
		address, path string
		want          int // 0: the handshake fails
	}{
		{"an administrator", cluster.Admin(t), plain, "/metrics", http.StatusOK},
		{"a monitor", cluster.Source(t, pki.MonitorRequest("prometheus")), plain, "/metrics", http.StatusOK},
		{"a service", cluster.Service(t, "cloud"), plain, "/metrics", http.StatusOK},
		{"the process itself", cluster.Source(t, pki.NodeRequest("node-1")), plain, "/metrics", http.StatusOK},
		{"another node", cluster.Source(t, pki.NodeRequest("node-2")), plain, "/metrics", http.StatusForbidden},
		{"a user", cluster.Source(t, pki.Request{CommonName: "bob", Client: true}), plain, "/metrics", http.StatusForbidden},
		{"no certificate", nil, plain, "/metrics", 0},
		{"another cluster's administrator", rpctest.NewCluster(t).Admin(t), plain, "/metrics", 0},
		{"an administrator, where profiles are off", cluster.Admin(t), plain, heap, http.StatusNotFound},
		{"an administrator", cluster.Admin(t), profiled, heap, http.StatusOK},
		{"the process itself", cluster.Source(t, pki.NodeRequest("node-1")), profiled, heap, http.StatusOK},
		{"a monitor", cluster.Source(t, pki.MonitorRequest("prometheus")), profiled, heap, http.StatusForbidden},
		{"a service", cluster.Service(t, "cloud"), profiled, heap, http.StatusForbidden},
		{"no certificate", nil, profiled, heap, 0},
	} {
		config := &tls.Config{InsecureSkipVerify: true}
		if tt.as != nil {
			config.GetClientCertificate = tt.as.ClientConfig(pki.AnyServer).GetClientCertificate
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + tt.address + tt.path)
		if err != nil {
			if tt.want != 0 {
				t.Errorf("%s reads %s: %v", tt.name, tt.path, err)
			}
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tt.want {
			t.Errorf("%s reads %s: %s, %v, want %d", tt.name, tt.path, resp.Status, err, tt.want)
		}
		if tt.path == "/metrics" && strings.Contains(string(body), "something") != (tt.want == http.StatusOK) {
			t.Errorf("%s reads %q", tt.name, body)
		}
	}
	if resp, err := http.Get("http://" + plain + "/metrics"); err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("metrics are served in plain text")
		}
	}
}
