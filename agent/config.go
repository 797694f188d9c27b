// Package agent is the node agent: it makes a machine a node of the cluster.
//
// It connects to the gateways only, to any of them, and continues without them: pods, routes,
// service maps and DNS keep the last known state, which is stored in the state directory.
package agent

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/hollow"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/pki"
)

// Config is an agent's configuration: the keys of its file, and its flags.
type Config struct {
	// Node is the node's name, which must be that of its certificate.
	Node string `yaml:"node" help:"name of this node"`
	// Address is where other nodes and the gateways reach it: an IPv4 address, in a dual-stack cluster
	// followed by a comma and an IPv6 address, if it has one. Without, IPv6 between nodes' pods takes
	// the overlay.
	Address string `yaml:"address" help:"IPv4 address of this node on the cluster's network, and after a comma its IPv6 address if it has one"`
	// Gateways are the addresses of all masters' gateways; calls go round robin over those that
	// answer.
	Gateways []string  `yaml:"gateways" help:"addresses (host:port) of the gateways"`
	TLS      pki.Files `yaml:"tls"`
	// StateDir must not be on a file system that is emptied at boot.
	StateDir string `yaml:"stateDir" help:"directory for the agent's state, and for pods' volumes and logs"`
	Listen   string `yaml:"listen" help:"listen address for calls of the gateways"`
	Metrics  string `yaml:"metrics" help:"listen address for metrics over HTTPS with a client certificate, or off"`
	// Profiles serves /debug/pprof/ at the address of the metrics, to administrators.
	Profiles bool `yaml:"profiles" help:"serve Go profiles to administrators at the metrics address"`

	Containerd          string `yaml:"containerd" help:"socket of containerd"`
	ContainerdNamespace string `yaml:"containerdNamespace" help:"containerd namespace for the node's containers and images"`
	Snapshotter         string `yaml:"snapshotter" help:"containerd snapshotter (default: overlayfs, or native without its support)"`
	// RuntimeHandlers are the handlers that runtime classes name, each "NAME=SHIM" with containerd's
	// name of the runtime, or "NAME=SHIM:BINARY" with a program in place of runc. Without one of the
	// name runc, that handler is the default runtime.
	RuntimeHandlers []string `yaml:"runtimeHandlers" help:"handlers of runtime classes, as NAME=SHIM, or NAME=SHIM:BINARY to replace runc"`
	// Cgroup is the cgroup of the machine: pods' cgroups are made below it, and its processes'
	// connections to services are balanced. A simulated machine has one of its own.
	Cgroup string `yaml:"cgroup" help:"cgroup of this machine"`
	// BPF is on a bpf file system; what is pinned there outlives the agent.
	BPF string `yaml:"bpf" help:"directory on a bpf file system, for pinned service maps"`

	ClusterCIDR   string `yaml:"clusterCIDR" help:"addresses of all pods: an IPv4 range, for dual stack followed by a comma and an IPv6 range"`
	ServiceCIDR   string `yaml:"serviceCIDR" help:"addresses of services: an IPv4 range, for dual stack followed by a comma and an IPv6 range"`
	ClusterDNS    string `yaml:"clusterDNS" help:"IPv4 address of the cluster DNS server, which runs on each node"`
	ClusterDomain string `yaml:"clusterDomain" help:"domain of the cluster's DNS names"`
	// Overlay says when packets to pods of other nodes are encapsulated: auto, for nodes on another
	// network than this one; always; or never, when all nodes are on one network.
	Overlay string `yaml:"overlay" help:"when to encapsulate packets to pods of other nodes: auto (nodes on other networks), always or never"`
	MTU     int    `yaml:"mtu" help:"MTU of pod interfaces (default: the node's, minus 50 for encapsulation unless overlay is never)"`

	// BackendSelection is how packets from elsewhere are spread over a service's endpoints: "random",
	// or "maglev", by lookup tables that are the same on all nodes. The annotation
	// xebec.io/backend-selection on a service goes before it.
	BackendSelection string `yaml:"backendSelection" help:"distribution of external traffic over endpoints: random or maglev"`
	// LoadBalancerClass is that of the services whose load balancers' addresses the nodes answer for,
	// besides those that name no class. Empty: this node answers for none.
	LoadBalancerClass string `yaml:"loadBalancerClass" help:"class of the load balancer addresses that this node may announce"`

	// Labels are given to the node when it registers, each "key=value". Of the labels under
	// kubernetes.io and k8s.io a node sets only those that kubelets set; an administrator sets the
	// others, such as roles: xebec label node NAME KEY=VALUE.
	Labels []string `yaml:"labels" help:"labels of the node, as key=value"`
	// StaticPods is a directory of manifests of pods that this node runs whatever the control plane
	// says; empty for none.
	StaticPods string `yaml:"staticPods" help:"directory of manifests of static pods (default: none)"`
	MaxPods    int    `yaml:"maxPods" help:"maximum number of pods on this node"`
	PodPIDs    int64  `yaml:"podPids" help:"maximum number of processes and threads of a pod; -1 for no limit"`
	// DrainTimeout is the maximum time that a deleted pod waits, before its containers get the stop
	// signal, until every node has removed it from its service maps. It is at most half of the pod's
	// grace period.
	DrainTimeout time.Duration `yaml:"drainTimeout" help:"maximum wait of a deleted pod for its removal from all service maps"`
	// RegistryDir holds a directory for each registry, of its host's name, with a file hosts.toml as
	// containerd reads it: mirrors to ask first, plain HTTP, certificates.
	RegistryDir           string `yaml:"registryDir" help:"directory of registry configurations (hosts.toml), as containerd reads it"`
	MaxParallelImagePulls int    `yaml:"maxParallelImagePulls" help:"maximum number of images pulled at a time"`
	// Unused images are removed when the usage of their file system is above the high threshold, until
	// it is at the low threshold.
	ImageGCHighThresholdPercent int           `yaml:"imageGCHighThresholdPercent" help:"disk usage above which unused images are removed"`
	ImageGCLowThresholdPercent  int           `yaml:"imageGCLowThresholdPercent" help:"disk usage at which the removal of images stops"`
	ImageMinimumGCAge           time.Duration `yaml:"imageMinimumGCAge" help:"minimum time that an image is unused before it is removed"`
	// Capacity replaces the capacity of the machine, for machines that are shared: then the available
	// amount is what the node's pods leave of it. Each "resource=quantity", of cpu, memory,
	// ephemeral-storage and pid.
	Capacity []string `yaml:"capacity" help:"capacity of the node, as RESOURCE=QUANTITY, if it is not that of the whole machine"`
	// SystemReserved and KubeReserved are reserved for the system, and for the agent and containerd.
	// They have the same resources as Capacity.
	SystemReserved []string `yaml:"systemReserved" help:"resources reserved for the system, as RESOURCE=QUANTITY"`
	KubeReserved   []string `yaml:"kubeReserved" help:"resources reserved for the agent and containerd, as RESOURCE=QUANTITY"`
	Eviction       Eviction `yaml:"eviction"`
	// ShutdownGracePeriod is the time for all pods to terminate when the machine shuts down; the last
	// ShutdownGracePeriodCriticalPods of it are for critical pods only.
	ShutdownGracePeriod             time.Duration `yaml:"shutdownGracePeriod" help:"time for pods to terminate at a node shutdown"`
	ShutdownGracePeriodCriticalPods time.Duration `yaml:"shutdownGracePeriodCriticalPods" help:"part of that time for critical pods only"`
	// LeaseTTL is the time after the last renewal of its lease at which the node is considered lost.
	LeaseTTL time.Duration `yaml:"leaseTTL" help:"time after the last renewal of its lease at which the node is considered lost"`

	// Hollow, when not 0, is the number of simulated nodes that run instead of this one. tls.cert and
	// tls.key serve the metrics then.
	Hollow     int    `yaml:"hollow" help:"number of simulated nodes, without containers, to run instead of this node"`
	NamePrefix string `yaml:"namePrefix" help:"prefix of the names of simulated nodes"`
	// HollowCACert and HollowCAKey are those of the cluster's authority, which issues each simulated
	// node its certificate. The key makes anyone an administrator of the cluster: it is for
	// measurements only, and an agent of a real node refuses it.
	HollowCACert string `yaml:"hollowCACert" help:"file with the authority's certificate, which issues the certificates of simulated nodes"`
	HollowCAKey  string `yaml:"hollowCAKey" help:"file with the key of that authority; only for simulated nodes, for measurements"`
	// HollowStartsPerSecond is number of simulated nodes that start per second.
	HollowStartsPerSecond float64 `yaml:"hollowStartsPerSecond" help:"number of simulated nodes that start per second"`
}

// Eviction has the thresholds at which the node evicts pods because it runs out of a resource.
// Signals are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available,
// imagefs.inodesFree and pid.available.
type Eviction struct {
	// Hard are the thresholds at which a pod is evicted without a grace period, each "signal<amount";
	// amounts are quantities or percentages.
	Hard []string `yaml:"hard" help:"thresholds at which a pod is evicted without a grace period, as signal<amount"`
	// Soft are the thresholds at which a pod is evicted with a grace period, once they are crossed for
	// SoftGracePeriod.
	Soft            []string `yaml:"soft" help:"thresholds at which a pod is evicted after a grace period, as signal<amount"`
	SoftGracePeriod []string `yaml:"softGracePeriod" help:"grace periods of the soft thresholds, as signal=duration"`
	// MinimumReclaim is the amount above a threshold that must be available before the threshold
	// counts as no longer crossed, each "signal=amount".
	MinimumReclaim []string `yaml:"minimumReclaim" help:"minimum amount above a crossed threshold that must be reclaimed, as signal=amount"`
	// PressureTransitionPeriod is the time that a condition of the node stays after the threshold was
	// last crossed.
	PressureTransitionPeriod time.Duration `yaml:"pressureTransitionPeriod" help:"time that a condition stays after its threshold"`
	// MaxPodGracePeriod is the maximum grace period of a pod that is evicted for a soft threshold.
	MaxPodGracePeriod time.Duration `yaml:"maxPodGracePeriod" help:"maximum grace period of a pod that is evicted for a soft threshold"`
}

// DefaultConfig returns the configuration that file and flags change.
func DefaultConfig() Config {
	return Config{
		StateDir: "/var/lib/xebec", Listen: ":10250", Metrics: "127.0.0.1:10255",
		Containerd: "/run/containerd/containerd.sock", ContainerdNamespace: "xebec", Cgroup: "/", BPF: "/sys/fs/bpf/xebec",
		ClusterCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16", ClusterDNS: "10.96.0.10", ClusterDomain: "cluster.local",
		Overlay:          string(podnet.OverlayAuto),
		BackendSelection: "random", LoadBalancerClass: datapath.DefaultClass,
		RegistryDir: "/etc/containerd/certs.d", MaxParallelImagePulls: 5,
		ImageGCHighThresholdPercent: 85, ImageGCLowThresholdPercent: 80, ImageMinimumGCAge: 2 * time.Minute,
		Eviction: Eviction{
			Hard: []string{
				"memory.available<100Mi",
				"nodefs.available<10%",
				"nodefs.inodesFree<5%",
				"imagefs.available<15%",
				"imagefs.inodesFree<5%",
			},
			PressureTransitionPeriod: 5 * time.Minute, MaxPodGracePeriod: 30 * time.Second,
		},
		MaxPods: 110, PodPIDs: 4096, DrainTimeout: 5 * time.Second, LeaseTTL: 10 * time.Second,
		ShutdownGracePeriod: 30 * time.Second, ShutdownGracePeriodCriticalPods: 10 * time.Second, NamePrefix: "hollow-",
		HollowStartsPerSecond: 100,
	}
}

// Validate returns all problems, joined.
func (c *Config) Validate() error {
	var problems []error
	add := func(key, format string, args ...any) {
		problems = append(problems, daemon.Problem(key, format, args...))
	}
	if len(c.Gateways) == 0 {
		add("gateways", "required")
	}
	for _, g := range c.Gateways {
		if _, _, err := net.SplitHostPort(g); err != nil {
			add("gateways", "%v", err)
		}
	}
	files := []struct{ key, name string }{{"tls.ca", c.TLS.CA}}
	if c.Hollow == 0 || c.Metrics != diagnostics.Off {
		files = append(files, []struct{ key, name string }{{"tls.cert", c.TLS.Cert}, {"tls.key", c.TLS.Key}}...)
	}
	for _, file := range files {
		if file.name == "" {
			add(file.key, "required")
		}
	}
	if c.LeaseTTL < 2*time.Second || c.LeaseTTL > time.Hour {
		add("leaseTTL", "%v is not between 2s and 1h", c.LeaseTTL)
	}
	if c.DrainTimeout < 0 || c.DrainTimeout > time.Minute {
		add("drainTimeout", "%v is not between 0 and 1m", c.DrainTimeout)
	}
	if c.MaxPods < 1 {
		add("maxPods", "%d is less than 1", c.MaxPods)
	}
	if c.ShutdownGracePeriod < 0 || c.ShutdownGracePeriodCriticalPods < 0 || c.ShutdownGracePeriodCriticalPods > c.ShutdownGracePeriod {
		add(
			"shutdownGracePeriodCriticalPods",
			"%v is not between 0 and shutdownGracePeriod, %v",
			c.ShutdownGracePeriodCriticalPods,
			c.ShutdownGracePeriod,
		)
	}
	if c.PodPIDs < 1 && c.PodPIDs != -1 {
		add("podPids", "invalid value %d: want at least 1, or -1 for no limit", c.PodPIDs)
	}
	if c.Hollow < 0 {
		add("hollow", "%d is less than 0", c.Hollow)
	}
	if c.Hollow == 0 {
		problems = append(problems, c.validateNode())
	} else {
		problems = append(problems, c.validateHollow())
	}
	return errors.Join(problems...)
}

// validateHollow checks what only simulated nodes need.
func (c *Config) validateHollow() error {
	var problems []error
	add := func(key, format string, args ...any) {
		problems = append(problems, daemon.Problem(key, format, args...))
	}
	if c.Hollow > hollow.MaxCount {
		add("hollow", "%d is more than %d", c.Hollow, hollow.MaxCount)
	}
	if errs := validation.IsDNS1123Subdomain(c.NamePrefix + "0"); len(errs) > 0 {
		add("namePrefix", "%q followed by a number is not a node's name: %s", c.NamePrefix, strings.Join(errs, ", "))
	}
	for _, file := range []struct{ key, name, what string }{
		{"hollowCACert", c.HollowCACert, "certificate"}, {"hollowCAKey", c.HollowCAKey, "key"},
	} {
		if file.name == "" {
			add(
				file.key,
				"required with hollow: each simulated node has a certificate of its own, which the cluster's authority issues; name the file of its %s",
				file.what,
			)
		}
	}
	if !(c.HollowStartsPerSecond > 0) || c.HollowStartsPerSecond > 1e6 {
		add("hollowStartsPerSecond", "%v is not more than 0 and at most 1000000", c.HollowStartsPerSecond)
	}
	return errors.Join(problems...)
}

// validateNode checks what only a real node needs.
func (c *Config) validateNode() error {
	var problems []error
	add := func(key, format string, args ...any) {
		problems = append(problems, daemon.Problem(key, format, args...))
	}
	for key, file := range map[string]string{"hollowCACert": c.HollowCACert, "hollowCAKey": c.HollowCAKey} {
		if file != "" {
			add(key, "%s: for simulated nodes only: a node must not have the key of an authority; remove this, or set hollow", file)
		}
	}
	if errs := validation.IsDNS1123Subdomain(c.Node); len(errs) > 0 {
		add("node", "%q: %s", c.Node, strings.Join(errs, ", "))
	}
	if !filepath.IsAbs(c.StateDir) {
		add("stateDir", "%q is not an absolute path", c.StateDir)
	}
	if c.MaxParallelImagePulls < 1 {
		add("maxParallelImagePulls", "%d is less than 1", c.MaxParallelImagePulls)
	}
	if c.ImageGCHighThresholdPercent < 1 || c.ImageGCHighThresholdPercent > 100 {
		add("imageGCHighThresholdPercent", "%d is not between 1 and 100", c.ImageGCHighThresholdPercent)
	}
	if c.ImageGCLowThresholdPercent < 0 || c.ImageGCLowThresholdPercent >= c.ImageGCHighThresholdPercent {
		add("imageGCLowThresholdPercent", "%d is not less than imageGCHighThresholdPercent", c.ImageGCLowThresholdPercent)
	}
	if c.StaticPods != "" && !filepath.IsAbs(c.StaticPods) {
		add("staticPods", "%q is not an absolute path", c.StaticPods)
	}
	if _, err := runtime.ParseHandlers(c.RuntimeHandlers); err != nil {
		add("runtimeHandlers", "%v", err)
	}
	if _, err := c.thresholds(); err != nil {
		add("eviction", "%v", err)
	}
	for key, list := range map[string][]string{"capacity": c.Capacity, "systemReserved": c.SystemReserved, "kubeReserved": c.KubeReserved} {
		if _, err := parseAmounts(list); err != nil {
			add(key, "%v", err)
		}
	}
	if !filepath.IsAbs(c.Cgroup) {
		add("cgroup", "%q does not begin with a slash", c.Cgroup)
	}
	if !filepath.IsAbs(c.BPF) {
		add("bpf", "%q is not an absolute path", c.BPF)
	}
	c.validateRanges(add)
	if !podnet.Overlay(c.Overlay).Valid() {
		add("overlay", "unknown overlay mode %q: want %s, %s or %s", c.Overlay, podnet.OverlayAuto, podnet.OverlayAlways, podnet.OverlayNever)
	}
	if c.BackendSelection != "random" && c.BackendSelection != "maglev" {
		add("backendSelection", "unknown backend selection %q: want random or maglev", c.BackendSelection)
	}
	if _, err := c.labels(); err != nil {
		add("labels", "%v", err)
	}
	return errors.Join(problems...)
}

func (c *Config) labels() (map[string]string, error) {
	out := map[string]string{}
	for _, l := range c.Labels {
		key, value, ok := strings.Cut(l, "=")
		if errs := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); !ok || len(errs) > 0 {
			return nil, fmt.Errorf("%q is not key=value: %s", l, strings.Join(errs, ", "))
		}
		if !core.NodeMaySetLabel(key) {
			return nil, fmt.Errorf(
				"%q may not be set by the node itself: remove it here, and have an administrator run xebec label node %s %s",
				key,
				c.Node,
				l,
			)
		}
		out[key] = value
	}
	return out, nil
}
