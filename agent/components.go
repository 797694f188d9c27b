package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/component"
	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/registration"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/server"
	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/version"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// node has what the components of a node's agent share. Each field is set by the start of one
// component and read by those after it.
type node struct {
	*Agent

	diagnostics *diagnostics.Server
	unlock      func()
	// known is the node's object as the previous agent stored it, nil if there was none.
	known     *corev1.Node
	runtime   *runtime.Runtime
	listener  *rpc.Server
	machine   machine
	recorder  *events.Recorder
	watches   *watches
	registrar *registrar
	ranges    ranges
	stack     *stack
	static    *staticPods
	evictions *eviction.Metrics
	pods      *pods.Set
	collector *images.Collector
}

// components returns the parts of a node's agent in the order in which they start.
func (n *node) components() []component.Component {
	return []component.Component{
		// Before all others: their metrics show what a start waits for.
		{Name: "metrics", Start: n.startMetrics, Stop: n.stopMetrics},
		// Two agents on one state directory would start every container twice.
		{Name: "state directory", Start: n.lockState, Stop: n.unlockState},
		{Name: "container runtime", Start: n.connectRuntime, Stop: n.closeRuntime},
		// The node's object names the port, so that the listener precedes the registration. Calls are
		// served last.
		{Name: "listener", Start: n.listen, Stop: n.closeListener},
		// The capacity of the node, and the cgroup that limits all pods, precede the first pod.
		{Name: "machine", Start: n.measureMachine},
		{Name: "events", Start: n.startEvents},
		{Name: "informers", Start: n.startInformers},
		// The node registers before it has a network: the cluster assigns its pod ranges to a node that
		// it knows.
		{Name: "registration", Start: n.startRegistration},
		{Name: "heartbeat", Start: n.startHeartbeat},
		{Name: "pod ranges", Start: n.awaitRanges},
		// Pods are connected when they start, so that the network precedes them. Stop closes maps that
		// the network's tasks use.
		{Name: "network", Start: n.startNetwork, Stop: n.stopNetwork},
		// Adopts the containers of the previous agent, and starts none of a pod that the control plane
		// has not confirmed.
		{Name: "pods", Start: n.startPods, Stop: n.waitForPods},
		{Name: "image collector", Start: n.startCollector},
		// Removes images before it evicts pods.
		{Name: "evictor", Start: n.startEvictor},
		// From here on the scheduler may bind pods to the node.
		{Name: "readiness", Start: n.reportReady},
		// Static pods precede those of the control plane: they may be the control plane.
		{Name: "static pods", Start: n.startStaticPods},
		{Name: "pod informer", Start: n.startPodInformer},
		{Name: "shutdown", Start: n.startShutdown},
		// Last: everything that its calls require exists.
		{Name: "API server", Start: n.serve},
	}
}

func (n *node) startMetrics(ctx context.Context, tasks *component.Tasks) (err error) {
	if n.diagnostics, err = n.listenMetrics(); err != nil {
		return err
	}
	tasks.Go(func() error { return n.diagnostics.Serve(ctx) })
	return nil
}

func (n *node) stopMetrics() { n.diagnostics.Close() }

func (n *node) lockState(context.Context, *component.Tasks) error {
	if err := os.MkdirAll(n.cfg.StateDir, 0o711); err != nil {
		return fmt.Errorf("creating the state directory: %w", err)
	}
	unlock, err := lock(n.cfg.StateDir)
	if err != nil {
		return err
	}
	if n.known, err = loadNode(n.cfg.StateDir, n.cfg.Node); err != nil {
		unlock()
		return fmt.Errorf("reading the stored node object: %w", err)
	}
	n.unlock = unlock
	n.log.Info("Starting agent", zap.String(metrics.KeyVersion, version.Version()), zap.Bool(metrics.KeyKnownBefore, n.known != nil))
	return nil
}

func (n *node) unlockState() { n.unlock() }

func (n *node) connectRuntime(ctx context.Context, _ *component.Tasks) error {
	handlers, err := runtime.ParseHandlers(n.cfg.RuntimeHandlers)
	if err != nil {
		return err
	}
	n.runtime, err = runtime.New(ctx, runtime.Config{
		Address: n.cfg.Containerd, Namespace: n.cfg.ContainerdNamespace, Snapshotter: n.cfg.Snapshotter,
		RuncRoot: filepath.Join(n.cfg.StateDir, "runc"), Handlers: handlers, CgroupParent: path.Join("/", n.cfg.Cgroup, "xebec"),
		ScratchDir: filepath.Join(n.cfg.StateDir, "exec"),
		Images:     images.Config{RegistryDir: n.cfg.RegistryDir, Parallel: n.cfg.MaxParallelImagePulls},
	})
	return err
}

func (n *node) closeRuntime() { n.runtime.Close() }

func (n *node) listen(context.Context, *component.Tasks) (err error) {
	n.listener, err = rpc.NewServer(rpc.ServerConfig{Listen: n.cfg.Listen, TLS: n.tls, Authorize: server.Authorize, Metrics: n.metrics}, n.log)
	return err
}

func (n *node) closeListener() { n.listener.Close() }

func (n *node) measureMachine(context.Context, *component.Tasks) error {
	n.machine = readMachine(n.cfg.StateDir)
	if err := n.machine.configure(&n.cfg); err != nil {
		return err
	}
	return n.runtime.BoundPods(n.machine.bounds())
}

func (n *node) startEvents(ctx context.Context, tasks *component.Tasks) error {
	n.recorder = events.NewRecorder(
		events.Config{Client: n.client, Component: "xebec-agent", Host: n.cfg.Node, Logger: n.log, Metrics: n.metrics},
	)
	tasks.Go(func() error { return n.recorder.Run(ctx) })
	return nil
}

// startInformers starts the informer of nodes. Those of other kinds start with the components that
// read them.
func (n *node) startInformers(ctx context.Context, tasks *component.Tasks) error {
	n.registrar = n.newRegistrar()
	n.watches = newWatches(n.conn, n.client, n.cfg.Node, n.cfg.StateDir, n.log)
	n.watches.doubted = n.registrar.nudge
	tasks.Go(func() error { return n.watches.runNodes(ctx) })
	return nil
}

func (n *node) newRegistrar() *registrar {
	return &registrar{
		cfg: &n.cfg, client: n.client, log: n.log, machine: n.machine, port: portOf(n.listener.Addr()), wake: make(chan struct{}, 1),
		notReady: "pod network is not ready",
		runtime:  n.runtime.Version, readOnlyBelow: n.runtime.ReadOnlyBelow, handlers: n.runtime.Handlers,
		images: func(ctx context.Context) ([]*corev1.ContainerImage, error) { return nodeImages(ctx, n.runtime) },
	}
}

func (n *node) startRegistration(ctx context.Context, tasks *component.Tasks) error {
	tasks.Go(func() error { return n.registrar.run(ctx) })
	return nil
}

func (n *node) startHeartbeat(ctx context.Context, tasks *component.Tasks) error {
	lease := registration.Lease{
		Client: n.client, Node: n.cfg.Node, TTL: n.cfg.LeaseTTL, File: filepath.Join(n.cfg.StateDir, "lease"), Log: n.log,
	}
	tasks.Go(func() error { return lease.Run(ctx) })
	return nil
}

func (n *node) awaitRanges(ctx context.Context, _ *component.Tasks) (err error) {
	n.ranges, err = n.watches.podCIDRs(ctx, n.known, n.dualStack())
	return err
}

func (n *node) startNetwork(ctx context.Context, tasks *component.Tasks) (err error) {
	if n.stack, err = n.setUpNetwork(ctx, n.ranges, ofKind[*corev1.Node](n.watches.kept), n.registrar); err != nil {
		return err
	}
	n.registrar.setFeatures(n.stack.datapath.Features())
	n.stack.run(ctx, tasks, n.watches)
	return nil
}

func (n *node) stopNetwork() { n.stack.close() }

func (n *node) startPods(ctx context.Context, _ *component.Tasks) error {
	n.static = n.newStaticPods(n.watches)
	n.evictions = eviction.NewMetrics(n.metrics)
	n.pods = pods.New(pods.Config{
		StateDir: filepath.Join(n.cfg.StateDir, "pods"), SeccompDir: filepath.Join(n.cfg.StateDir, "seccomp"),
		NodeName: n.cfg.Node, HostIP: n.stack.nodeIP, IPv6: n.stack.ipv6, DNS: netip.MustParseAddr(n.cfg.ClusterDNS),
		ClusterDomain: n.cfg.ClusterDomain,
		MemoryBytes:   n.machine.memoryBytes, MilliCPU: n.machine.milliCPU, PodProcesses: n.cfg.PodPIDs,
		Admit: n.registrar.admit, Allocatable: n.machine.grantable(), Evictions: n.evictions,
		Drain: n.watches.drain, DrainTimeout: n.cfg.DrainTimeout, Services: n.watches.servicesIn,
		Runtime: n.runtime, Network: network{n.stack.pods, n.stack.datapath, n.stack.enforcer},
		Cluster:  cluster{controlPlane{n.client, authv1.NewTokenServiceClient(n.conn), rootCA{n.tls}}, n.static},
		Recorder: recorder{n.recorder}, Log: n.log,
	})
	return n.pods.Start(ctx)
}

func (n *node) waitForPods() { n.pods.Wait() }

func (n *node) startCollector(ctx context.Context, tasks *component.Tasks) error {
	n.collector = n.imageCollector(n.runtime, n.pods, n.recorder)
	tasks.Go(func() error { return n.collector.Run(ctx) })
	return nil
}

func (n *node) startEvictor(ctx context.Context, tasks *component.Tasks) error {
	evictor, err := n.evictor(n.machine, n.runtime, n.pods, n.registrar, n.collector, n.evictions)
	if err != nil {
		return err
	}
	tasks.Go(func() error { return evictor.Run(ctx) })
	return nil
}

func (n *node) reportReady(context.Context, *component.Tasks) error {
	n.registrar.setNotReady("")
	return nil
}

func (n *node) startStaticPods(ctx context.Context, tasks *component.Tasks) error {
	if n.static != nil {
		n.static.start(ctx, tasks, n)
	}
	return nil
}

func (n *node) startPodInformer(ctx context.Context, tasks *component.Tasks) error {
	tasks.Go(func() error { return n.watches.runPods(ctx, n.pods, n.static) })
	return nil
}

func (n *node) startShutdown(ctx context.Context, tasks *component.Tasks) error {
	tasks.Go(func() error { return n.awaitShutdown(ctx, n.pods, n.registrar) })
	return nil
}

func (n *node) serve(ctx context.Context, tasks *component.Tasks) error {
	server.New(server.Config{
		Node: n.cfg.Node, Pods: n.pods, Runtime: n.runtime, Cgroup: n.cfg.Cgroup, Services: n.stack.entries, Features: n.stack.features,
		Network: server.Network{
			Drops: n.stack.enforcer.Drops, Unrouted: n.stack.syncer.Drops, Connections: n.stack.connections, Trace: n.stack.trace,
		},
		Imported: n.registrar.nudge,
	}).Register(n.listener)
	nodev1.RegisterReachabilityServiceServer(n.listener, &peers{tls: n.tls, nodes: n.watches.nodes})
	tasks.Go(func() error { return n.listener.Serve(ctx) })
	return nil
}
