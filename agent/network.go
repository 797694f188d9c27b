package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/component"
	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/dns"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/agent/resolver"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/version"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// stack is the node's networking: pods' addresses and routes, service maps, DNS.
type stack struct {
	log      *zap.Logger
	pods     *podnet.Network
	policies *policy.Kernel
	enforcer *policy.Enforcer
	datapath *datapath.Datapath
	syncer   *datapath.Syncer
	resolver *resolver.Resolver
	revision func() string

	nodeIP, nodeIP6 netip.Addr
	clusterCIDRs    []netip.Prefix
}

// networkMetrics outlive a network that could not be set up.
type networkMetrics struct {
	pods     *podnet.Metrics
	policy   *policy.Metrics
	datapath *datapath.Metrics
}

func newNetworkMetrics(r prometheus.Registerer) networkMetrics {
	return networkMetrics{podnet.NewMetrics(r), policy.NewMetrics(r), datapath.NewMetrics(r)}
}

// setUpNetwork sets the node's networking up, trying until it works, and tells the registrar what
// is in its way. Kept are the nodes that the previous agent knew.
func (a *Agent) setUpNetwork(ctx context.Context, podCIDRs ranges, kept iter.Seq[*corev1.Node], r *registrar) (*stack, error) {
	m := newNetworkMetrics(a.metrics)
	for {
		s, err := a.newStack(ctx, podCIDRs, kept, m)
		if err == nil {
			return s, nil
		}
		a.log.Error("Failed to set up the network", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, networkRetry))
		r.setNotReady("network: " + err.Error())
		timer := time.NewTimer(networkRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

func (a *Agent) newStack(ctx context.Context, podCIDRs ranges, kept iter.Seq[*corev1.Node], m networkMetrics) (_ *stack, err error) {
	s := &stack{log: a.log}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	clusterCIDRs, err1 := parseRanges(a.cfg.ClusterCIDR)
	serviceCIDRs, err2 := parseRanges(a.cfg.ServiceCIDR)
	var err3 error
	s.nodeIP, s.nodeIP6, err3 = a.cfg.addresses()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	s.clusterCIDRs = clusterCIDRs.list()
	clusterDNS := netip.MustParseAddr(a.cfg.ClusterDNS)
	if s.pods, err = podnet.New(podnet.Config{
		PodCIDR: podCIDRs.four, ClusterCIDR: clusterCIDRs.four, ServiceCIDR: serviceCIDRs.four, NodeIP: s.nodeIP,
		PodCIDR6: podCIDRs.six, ClusterCIDR6: clusterCIDRs.six, ServiceCIDR6: serviceCIDRs.six, NodeIP6: s.nodeIP6,
		DNSIP: clusterDNS, Overlay: podnet.Overlay(a.cfg.Overlay), MTU: a.cfg.MTU, StateDir: filepath.Join(a.cfg.StateDir, "podnet"),
		Metrics: m.pods,
	}); err != nil {
		return nil, fmt.Errorf("pod network: %w", err)
	}
	// What a previous agent connected and no longer knew of when it died.
	if err := s.pods.Retain(ctx, checkpoint.Known(filepath.Join(a.cfg.StateDir, "pods"))); err != nil {
		a.log.Warn("Failed to remove networks of former pods", zap.Error(err))
	}
	cgroup, err := cgroupDir(a.cfg.Cgroup)
	if err != nil {
		return nil, err
	}
	if s.policies, err = policy.Load(policy.KernelConfig{PinPath: filepath.Join(a.cfg.BPF, "policy")}); err != nil {
		return nil, fmt.Errorf("network policies: %w", err)
	}
	s.enforcer = policy.NewEnforcer(s.policies, m.policy, a.log)
	routing := datapath.Config{
		PinPath: a.cfg.BPF, CgroupPath: cgroup, NodeIP: s.nodeIP, PodCIDR: podCIDRs.four, ClusterCIDR: clusterCIDRs.four,
		IPv6:    podCIDRs.six.IsValid(),
		NodeIP6: s.nodeIP6, PodCIDR6: podCIDRs.six, ClusterCIDR6: clusterCIDRs.six,
		PolicyMaps: s.policies.Maps(), Metrics: m.datapath, PodLinkPrefix: podnet.LinkPrefix,
	}
	if podnet.Overlay(a.cfg.Overlay) != podnet.OverlayNever {
		routing.OverlayLink, routing.OverlayIP, routing.OverlayPort = podnet.OverlayLink, podnet.OverlayAddress(podCIDRs.four), podnet.OverlayPort
		routing.OverlayNodes = nodeAddresses(kept)
		if podCIDRs.six.IsValid() {
			routing.OverlayIP6 = podnet.OverlayAddress(podCIDRs.six)
		}
	}
	if s.datapath, err = datapath.Load(routing); err != nil {
		return nil, fmt.Errorf("service maps: %w", err)
	}
	for _, f := range s.datapath.Features() {
		switch {
		case f.Missing != "":
			a.log.Warn(
				"Kernel lacks a feature of the datapath",
				zap.String(metrics.KeyFeature, f.Name),
				zap.String(metrics.KeyProvider, f.Method),
				zap.String(metrics.KeyMissing, f.Missing),
				zap.Error(f.Reason),
			)
		case f.Reason != nil:
			a.log.Info("Datapath uses a fallback",
				zap.String(metrics.KeyFeature, f.Name), zap.String(metrics.KeyProvider, f.Method), zap.NamedError(metrics.KeyReason, f.Reason))
		}
	}
	s.syncer = datapath.NewSyncer(a.cfg.Node, s.datapath, a.log)
	s.syncer.AnnounceClass(a.cfg.LoadBalancerClass)
	if a.cfg.BackendSelection == "maglev" {
		s.syncer.PreferMaglev()
	}
	host, err := dns.ReadHostResolvConf("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("reading the node's resolvers: %w", err)
	}
	if s.resolver, err = resolver.New(resolver.Config{
		Settings: resolver.Settings{
			Version: version.Version() + " " + version.Commit(), Domain: a.cfg.ClusterDomain, Address: netip.AddrPortFrom(clusterDNS, 53),
			Upstreams: host.Upstreams(), CIDRs: append(clusterCIDRs.list(), serviceCIDRs.list()...),
		},
		Dir: filepath.Join(a.cfg.StateDir, "dns"), Log: a.log,
	}); err != nil {
		return nil, fmt.Errorf("DNS: %w", err)
	}
	if err := s.resolver.Start(ctx); err != nil {
		return nil, err
	}
	a.dns.Store(s.resolver)
	return s, nil
}

// run starts what keeps the network up to date.
func (s *stack) run(ctx context.Context, tasks *component.Tasks, w *watches) {
	s.revision = w.services.Revision
	w.serveKept(s)
	s.syncer.OnProgrammed(w.drain.Programmed)
	tasks.Go(func() error { return s.pods.Run(ctx, s.log) })
	tasks.Go(func() error { return s.enforcer.Run(ctx) })
	tasks.Go(func() error { return w.policies.run(ctx, tasks, s.enforcer) })
	tasks.Go(func() error { return s.syncer.Run(ctx) })
	tasks.Go(func() error { return s.datapath.Tend(ctx, s.log) })
	tasks.Go(func() error { return s.syncer.WatchDrops(ctx, s.datapath) })
	tasks.Go(func() error { return s.resolver.Run(ctx) })
	tasks.Go(func() error { return w.drain.Run(ctx) })
	tasks.Go(func() error { return w.runNeighbours(ctx, s) })
	tasks.Go(func() error { return w.runServices(ctx, tasks, s) })
}

// close lets go of what the kernel keeps at work.
func (s *stack) close() {
	var errs []error
	if s.policies != nil {
		errs = append(errs, s.policies.Close())
	}
	if s.datapath != nil {
		errs = append(errs, s.datapath.Close())
	}
	if s.pods != nil {
		errs = append(errs, s.pods.Close())
	}
	if err := errors.Join(errs...); err != nil {
		s.log.Warn("Failed to close the network", zap.Error(err))
	}
}

// ipv6 returns the IPv6 address that goes with a pod's IPv4 address, or with the node's; invalid if
// there is none.
func (s *stack) ipv6(ip netip.Addr) netip.Addr {
	if ip == s.nodeIP {
		return s.nodeIP6
	}
	return s.pods.IP6(ip)
}

// setNodes sets the nodes that may send encapsulated packets, and the networks that pods reach with
// their own addresses: pods, and nodes on this node's network. Packets to other destinations, whose
// routers have no routes to pods, get the node's address.
func (s *stack) setNodes(nodes iter.Seq[*corev1.Node]) error {
	if err := s.datapath.SetOverlayNodes(nodeAddresses(nodes)); err != nil {
		return err
	}
	networks := slices.Clone(s.clusterCIDRs)
	for n := range nodes {
		addr, err := netip.ParseAddr(core.NodeAddress(n, "InternalIP"))
		if err != nil {
			continue
		}
		if !s.pods.Encapsulates(addr) {
			networks = append(networks, netip.PrefixFrom(addr, addr.BitLen()))
		}
		if six := nodeAddress6(n); six.IsValid() && !s.pods.Encapsulates6(addr, six) {
			networks = append(networks, netip.PrefixFrom(six, six.BitLen()))
		}
	}
	return s.datapath.SetClusterNetworks(networks)
}

// nodeAddresses returns the IPv4 addresses of nodes, by which they send encapsulated packets.
func nodeAddresses(nodes iter.Seq[*corev1.Node]) []netip.Addr {
	var out []netip.Addr
	for n := range nodes {
		if addr, err := netip.ParseAddr(core.NodeAddress(n, "InternalIP")); err == nil {
			out = append(out, addr)
		}
	}
	return out
}

// entries compares what the service maps hold with what they should.
func (s *stack) entries() ([]*nodev1.ServiceEntry, string, error) {
	list, err := s.syncer.Entries()
	if err != nil {
		return nil, "", err
	}
	out := make([]*nodev1.ServiceEntry, 0, len(list))
	for _, e := range list {
		out = append(out, &nodev1.ServiceEntry{
			Service: e.Service, Frontend: e.Frontend.AddrPort.String(), Protocol: e.Frontend.Protocol.String(),
			WantedBackends: texts(e.Wanted), ActualBackends: texts(e.Actual),
		})
	}
	return out, s.revision(), nil
}

// features tells how the node provides what depends on its kernel.
func (s *stack) features() []*nodev1.KernelFeature {
	var out []*nodev1.KernelFeature
	for _, f := range s.datapath.Features() {
		k := &nodev1.KernelFeature{Name: f.Name, Method: f.Method, Missing: f.Missing}
		if f.Reason != nil {
			k.Reason = f.Reason.Error()
		}
		out = append(out, k)
	}
	return out
}

func texts(list []netip.AddrPort) []string {
	out := make([]string, 0, len(list))
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

// cgroupDir returns the directory in cgroup v2 of a cgroup, wherever that is mounted: alone, or
// beside v1.
func cgroupDir(cgroup string) (string, error) {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(root, &st) != nil || int64(st.Type) != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		dir := filepath.Join(root, cgroup)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("cgroup %s: %w", cgroup, err)
		}
		return dir, nil
	}
	return "", errors.New("cgroup v2 is not mounted: mount it at /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1")
}
