package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/resolver"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/server"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/version"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
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
		return nil, fmt.Errorf("the configuration is not valid:\n%w", err)
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
		return nil, fmt.Errorf("certificate %s belongs to %q, want %q: the gateway would not let this node be %s", cfg.TLS.Cert, have, want, cfg.Node)
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

// Run runs the node until ctx ends. Its pods, service maps and routes stay as they are then, for the next agent to take up.
func (a *Agent) Run(ctx context.Context) error {
	if a.conn != nil {
		defer a.conn.Close()
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.serveMetrics(ctx) })
	if a.cfg.Hollow > 0 {
		group.Go(func() error { return a.runHollow(ctx) })
	} else {
		group.Go(func() error { return a.runNode(ctx, group) })
	}
	err := group.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, errShutdown) {
		return nil
	}
	return err
}

// runNode brings the node up, in the order in which its parts need each other, and starts them in group.
func (a *Agent) runNode(ctx context.Context, group *errgroup.Group) error {
	if err := os.MkdirAll(a.cfg.StateDir, 0o711); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	unlock, err := lock(a.cfg.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	known, err := loadNode(a.cfg.StateDir, a.cfg.Node)
	if err != nil {
		return fmt.Errorf("reading what is known of the node: %w", err)
	}
	a.log.Info("Agent starts", zap.String("version", version.Version()), zap.Bool("knownBefore", known != nil))
	rt, err := runtime.New(ctx, runtime.Config{
		Address: a.cfg.Containerd, Namespace: a.cfg.ContainerdNamespace, Snapshotter: a.cfg.Snapshotter,
		RuncRoot: filepath.Join(a.cfg.StateDir, "runc"), CgroupParent: path.Join("/", a.cfg.Cgroup, "xebec"), ScratchDir: filepath.Join(a.cfg.StateDir, "exec"),
		Images: images.Config{RegistryDir: a.cfg.RegistryDir, Parallel: a.cfg.MaxParallelImagePulls},
	})
	if err != nil {
		return err
	}
	defer rt.Close()

	listen, err := rpc.NewServer(rpc.ServerConfig{Listen: a.cfg.Listen, TLS: a.tls, Authorize: server.Authorize, Metrics: a.metrics}, a.log)
	if err != nil {
		return err
	}
	defer listen.Close()

	m := readMachine(a.cfg.StateDir)
	if err := m.configure(&a.cfg); err != nil {
		return err
	}
	if err := rt.BoundPods(m.bounds()); err != nil {
		return err
	}
	registrar := &registrar{
		cfg: &a.cfg, client: a.client, log: a.log, machine: m, port: portOf(listen.Addr()), wake: make(chan struct{}, 1),
		notReady: "the pod network is not up yet",
		runtime:  rt.Version, readOnlyBelow: rt.ReadOnlyBelow,
		images: func(ctx context.Context) ([]*corev1.ContainerImage, error) { return nodeImages(ctx, rt) },
	}
	recorded := events.NewRecorder(events.Config{Client: a.client, Component: "xebec-agent", Host: a.cfg.Node, Logger: a.log, Metrics: a.metrics})
	watch := newWatches(a.conn, a.client, a.cfg.Node, a.cfg.StateDir, a.log)
	watch.doubted = registrar.nudge
	group.Go(func() error { return registrar.run(ctx) })
	group.Go(func() error {
		return heartbeat{client: a.client, node: a.cfg.Node, ttl: a.cfg.LeaseTTL, log: a.log, keep: keptLease(a.cfg.StateDir)}.run(ctx)
	})
	group.Go(func() error { return recorded.Run(ctx) })
	group.Go(func() error { return watch.runNodes(ctx) })

	podCIDRs, err := watch.podCIDRs(ctx, known, a.dualStack())
	if err != nil {
		return err
	}
	stack, err := a.startNetwork(ctx, podCIDRs, ofKind[*corev1.Node](watch.kept), registrar)
	if err != nil {
		return err
	}
	defer stack.close()
	registrar.setFeatures(stack.datapath.Features())
	stack.run(ctx, group, watch)

	files := a.newStaticPods(watch)
	evictions := eviction.NewMetrics(a.metrics)
	set := pods.New(pods.Config{
		StateDir: filepath.Join(a.cfg.StateDir, "pods"), SeccompDir: filepath.Join(a.cfg.StateDir, "seccomp"), NodeName: a.cfg.Node, HostIP: stack.nodeIP, IPv6: stack.ipv6,
		MemoryBytes: m.memoryBytes, MilliCPU: m.milliCPU, PodProcesses: a.cfg.PodPIDs, Admit: registrar.admit, Allocatable: m.grantable(), Evictions: evictions, DNS: netip.MustParseAddr(a.cfg.ClusterDNS), ClusterDomain: a.cfg.ClusterDomain,
		Drain: watch.drain, DrainTimeout: a.cfg.DrainTimeout, Services: watch.servicesIn,
		Runtime: rt, Network: network{stack.pods, stack.datapath, stack.enforcer}, Cluster: cluster{controlPlane{a.client, authv1.NewTokenServiceClient(a.conn), rootCA{a.tls}}, files}, Recorder: recorder{recorded}, Log: a.log,
	})
	if err := set.Start(ctx); err != nil {
		return err
	}
	defer set.Wait()
	collector := a.imageCollector(rt, set, recorded)
	group.Go(func() error { return collector.Run(ctx) })
	evictor, err := a.evictor(m, rt, set, registrar, collector, evictions)
	if err != nil {
		return err
	}
	group.Go(func() error { return evictor.Run(ctx) })
	registrar.setNotReady("")
	if files != nil {
		files.start(ctx, group, a, set, registrar, recorded, watch)
	}
	group.Go(func() error { return watch.runPods(ctx, set, files) })

	group.Go(func() error { return a.awaitShutdown(ctx, set, registrar) })
	server.New(server.Config{Node: a.cfg.Node, Pods: set, Runtime: rt, Cgroup: a.cfg.Cgroup, Services: stack.entries, Features: stack.features, Network: server.Network{Drops: stack.enforcer.Drops, Unrouted: stack.syncer.Drops, Connections: stack.connections, Trace: stack.trace}, Imported: registrar.nudge}).Register(listen)
	nodev1.RegisterReachabilityServiceServer(listen, &peers{tls: a.tls, nodes: watch.nodes})
	return listen.Serve(ctx)
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

// lock makes sure that one agent at a time works on a state directory: two would start everything twice.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another agent works on %s: %w", dir, err), f.Close())
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

func (a *Agent) serveMetrics(ctx context.Context) error {
	s, err := diagnostics.Listen(a.cfg.Metrics, diagnostics.Config{
		Gatherer: prometheus.Gatherers{a.metrics, prometheus.GathererFunc(a.gatherDNS)}, TLS: a.tls, Profiles: a.cfg.Profiles,
	})
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Serve(ctx)
}
