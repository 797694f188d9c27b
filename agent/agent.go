package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/agent/component"
	"github.com/xebec-project/xebec/agent/resolver"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/version"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// networkRetry is how soon a network that could not be set up is tried again.
const networkRetry = 3 * time.Second

// Agent is one node's agent, or one process of simulated nodes.
type Agent struct {
	cfg Config
	log *zap.Logger
	tls *pki.Source
	// conn and client are nil for simulated nodes, and authorities is nil for a real one.
	conn        *grpc.ClientConn
	client      *client.Client
	authorities *authorities
	metrics     *prometheus.Registry
	// dns has the metrics of the node's DNS process, once the network is set up.
	dns atomic.Pointer[resolver.Resolver]
}

// New checks the configuration and prepares an agent. It does not wait for the network.
func New(cfg Config, log *zap.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("invalid configuration:\n%w", err)
	}
	a := &Agent{cfg: cfg, log: log, metrics: prometheus.NewRegistry()}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), retry.Process)
	var err error
	if cfg.Hollow > 0 {
		if err = a.prepareHollow(); err != nil {
			return nil, err
		}
		return a, nil
	}
	if a.tls, err = pki.NewSource(cfg.TLS); err != nil {
		return nil, err
	}
	a.log = log.With(logKey(cfg.Node))
	if have, want := a.tls.Leaf().Subject.CommonName, pki.NodeUser(cfg.Node); have != want {
		return nil, fmt.Errorf(
			"certificate %s belongs to %q, want %q: the gateway would refuse this node as %s",
			cfg.TLS.Cert,
			have,
			want,
			cfg.Node,
		)
	}
	if a.conn, err = a.dial(a.tls); err != nil {
		return nil, err
	}
	a.client = client.New(a.conn, client.WithFieldManager("xebec-agent"))
	return a, nil
}

// dial returns a connection to the gateways as the user of a certificate.
func (a *Agent) dial(identity *pki.Source, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return rpc.Dial("static:///"+strings.Join(a.cfg.Gateways, ","), rpc.ClientConfig{
		TLS: identity, UserAgent: "xebec-agent/" + version.Version(), Silence: rpc.NodeSilence, Options: options,
	})
}

// Run runs the node until ctx ends. Its pods, service maps and routes stay as they are then, for
// the next agent to take up.
func (a *Agent) Run(ctx context.Context) error {
	if a.conn != nil {
		defer a.conn.Close()
	}
	n := &node{Agent: a}
	parts := n.components()
	if a.cfg.Hollow > 0 {
		parts = n.simulation()
	}
	err := component.Run(ctx, parts)
	if errors.Is(err, context.Canceled) || errors.Is(err, errShutdown) {
		return nil
	}
	return err
}

func nodeImages(ctx context.Context, rt *runtime.Runtime) ([]*corev1.ContainerImage, error) {
	list, err := rt.Images().List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]*corev1.ContainerImage, 0, len(list))
	for _, i := range list[:min(len(list), maxImages)] {
		out = append(out, &corev1.ContainerImage{Names: []string{i.Name}, SizeBytes: i.Size})
	}
	return out, nil
}

// lock makes sure that one agent at a time works on a state directory: two would start everything
// twice.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another agent uses %s: %w", dir, err), f.Close())
	}
	return func() { f.Close() }, nil
}

// gatherDNS returns the metrics of the node's DNS process.
func (a *Agent) gatherDNS() ([]*dto.MetricFamily, error) {
	if dns := a.dns.Load(); dns != nil {
		return dns.Gather()
	}
	return nil, nil
}

func (a *Agent) listenMetrics() (*diagnostics.Server, error) {
	return diagnostics.Listen(a.cfg.Metrics, diagnostics.Config{
		Gatherer: prometheus.Gatherers{a.metrics, prometheus.GathererFunc(a.gatherDNS)}, TLS: a.tls, Profiles: a.cfg.Profiles,
	})
}
