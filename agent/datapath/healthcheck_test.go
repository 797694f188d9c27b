package datapath

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/internal/loopbacktest"
)

func TestHealthChecks(t *testing.T) {
	own, other := loopbacktest.Address(t), loopbacktest.Address(t)
	ip, one, two := own.Addr(), own.Port(), other.Port()
	h := newHealthServer(ip, zaptest.NewLogger(t))
	t.Cleanup(h.close)
	ask := func(port uint16, status, endpoints int, name string) {
		t.Helper()
		resp, err := http.Get(fmt.Sprintf("http://%v:%d/healthz", ip, port))
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
			return
		}
		var got struct {
			Service             struct{ Namespace, Name string }
			LocalEndpoints      int
			ServiceProxyHealthy bool
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if resp.StatusCode != status || got.LocalEndpoints != endpoints || got.Service.Namespace != "ns" || got.Service.Name != name || !got.ServiceProxyHealthy {
			t.Errorf("%d %s, want %d, %d endpoints of %s", resp.StatusCode, body, status, endpoints, name)
		}
		if weight := resp.Header.Get("X-Load-Balancing-Endpoint-Weight"); weight != fmt.Sprint(endpoints) {
			t.Errorf("weight %q, want %d", weight, endpoints)
		}
	}
	check := func(port uint16, name string, endpoints int) HealthCheck {
		return HealthCheck{Port: port, Namespace: "ns", Name: name, Endpoints: endpoints}
	}
	if err := h.set([]HealthCheck{check(one, "a", 2), check(two, "b", 0)}); err != nil {
		t.Fatal(err)
	}
	ask(one, http.StatusOK, 2, "a")
	ask(two, http.StatusServiceUnavailable, 0, "b")
	if err := h.set([]HealthCheck{check(two, "b", 1)}); err != nil {
		t.Fatal(err)
	}
	ask(two, http.StatusOK, 1, "b")
	l, err := net.Listen("tcp", own.String())
	if err != nil {
		t.Fatalf("a port that is no longer asked at is not free: %v", err)
	}
	if err := h.set([]HealthCheck{check(one, "a", 1), check(two, "b", 1)}); err == nil {
		t.Error("a port that another has was opened")
	}
	ask(two, http.StatusOK, 1, "b")
	l.Close()
	if err := h.set([]HealthCheck{check(one, "a", 1), check(two, "b", 1)}); err != nil {
		t.Errorf("a port that came free: %v", err)
	}
	ask(one, http.StatusOK, 1, "a")
}
