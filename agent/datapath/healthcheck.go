package datapath

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
)

// healthServer answers load balancers that ask whether this node has endpoints of a
// service that keeps traffic on the node that it reached, each at a port of its own, as
// kube-proxy does: 200 when it has, 503 when it has none.
type healthServer struct {
	node netip.Addr
	log  *zap.Logger

	mu     sync.Mutex
	open   map[uint16]*http.Server
	checks map[uint16]HealthCheck
}

func newHealthServer(node netip.Addr, log *zap.Logger) *healthServer {
	return &healthServer{node: node, log: log, open: make(map[uint16]*http.Server), checks: make(map[uint16]HealthCheck)}
}

// set makes these the served health checks, and no others. The error names ports that cannot be
// opened, which the next call tries again.
func (h *healthServer) set(checks []HealthCheck) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.checks)
	for _, c := range checks {
		h.checks[c.Port] = c
	}
	var errs []error
	for port, s := range h.open {
		if _, wanted := h.checks[port]; !wanted {
			errs = append(errs, s.Close())
			delete(h.open, port)
		}
	}
	for port, c := range h.checks {
		if h.open[port] != nil {
			continue
		}
		l, err := net.Listen("tcp", netip.AddrPortFrom(h.node, port).String())
		if err != nil {
			errs = append(errs, fmt.Errorf("health checks of service %s/%s: %w", c.Namespace, c.Name, err))
			continue
		}
		s := &http.Server{Handler: h.handler(port), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
		h.open[port] = s
		go func() { // ends with Close
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				h.log.Error("Health check server failed", zap.Uint16(metrics.KeyPort, port), zap.Error(err))
			}
		}()
	}
	return errors.Join(errs...)
}

// close ends all that set opened.
func (h *healthServer) close() {
	if err := h.set(nil); err != nil {
		h.log.Warn("Failed to stop a health check server", zap.Error(err))
	}
}

// healthAnswer has the fields of kube-proxy's.
type healthAnswer struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int  `json:"localEndpoints"`
	ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
}

func (h *healthServer) handler(port uint16) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h.mu.Lock()
		c, known := h.checks[port]
		h.mu.Unlock()
		if !known {
			http.NotFound(w, nil)
			return
		}
		answer := healthAnswer{LocalEndpoints: c.Endpoints, ServiceProxyHealthy: true}
		answer.Service.Namespace, answer.Service.Name = c.Namespace, c.Name
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(c.Endpoints))
		if c.Endpoints == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			h.log.Debug("Failed to answer a health check", zap.Error(err))
		}
	})
}
