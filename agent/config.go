// Package agent is the node agent: it makes a machine a node of the cluster.
//
// It talks to the gateways only, any of them, and goes on without them: pods, routes, service maps
// and DNS keep to what was last known, and what must be known for that lies in the state directory.
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
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/pki"
)

// Config is an agent's configuration: the keys of its file, and its flags.
type Config struct {
	// Node is the node's name, which its certificate must bear out.
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
	StateDir string `yaml:"stateDir" help:"directory of the agent's state and of the pods' volumes and logs"`
	Listen   string `yaml:"listen" help:"address to serve the gateways' calls at"`
	Metrics  string `yaml:"metrics" help:"address to serve metrics at by HTTPS with a client certificate, or off"`
	// Profiles serves /debug/pprof/ at the address of the metrics, to administrators.
	Profiles bool `yaml:"profiles" help:"serve Go's profiles where the metrics are, to administrators"`

	Containerd          string `yaml:"containerd" help:"socket of containerd"`
	ContainerdNamespace string `yaml:"containerdNamespace" help:"containerd namespace for the node's containers and images"`
	Snapshotter         string `yaml:"snapshotter" help:"containerd snapshotter (default: overlayfs, or native where that can't work)"`
	// Cgroup is the cgroup of the machine: pods' cgroups are made below it, and its processes'
	// connections to services are balanced. A simulated machine has one of its own.
	Cgroup string `yaml:"cgroup" help:"cgroup of this machine"`
	// BPF is on a bpf file system; what is pinned there outlives the agent.
	BPF string `yaml:"bpf" help:"directory on a bpf file system for the service maps"`

	ClusterCIDR   string `yaml:"clusterCIDR" help:"addresses of all pods: an IPv4 range, for dual stack followed by a comma and an IPv6 range"`
	ServiceCIDR   string `yaml:"serviceCIDR" help:"addresses of services: an IPv4 range, for dual stack followed by a comma and an IPv6 range"`
	ClusterDNS    string `yaml:"clusterDNS" help:"IPv4 address of the cluster's DNS, which the agent answers at"`
	ClusterDomain string `yaml:"clusterDomain" help:"domain of the cluster's DNS names"`
	// Overlay says when packets to pods of other nodes are encapsulated: auto, for nodes on another
	// network than this one; always; or never, when all nodes are on one network.
	Overlay string `yaml:"overlay" help:"when to encapsulate packets to other nodes' pods: auto (nodes on other networks), always or never"`
	MTU     int    `yaml:"mtu" help:"MTU of pods' interfaces (default: that of the node's, less 50 for encapsulation unless overlay is never)"`

	// BackendSelection is how packets from elsewhere are spread over a service's endpoints: "random",
	// or "maglev", by lookup tables that are the same on all nodes. The annotation
	// xebec.io/backend-selection on a service goes before it.
	BackendSelection string `yaml:"backendSelection" help:"how traffic from outside is spread over a service's endpoints: random or maglev"`
	// LoadBalancerClass is that of the services whose load balancers' addresses the nodes answer for,
	// besides those that name no class. Empty: this node answers for none.
	LoadBalancerClass string `yaml:"loadBalancerClass" help:"class of the load balancers whose addresses this node may answer for"`

	// Labels are given to the node when it registers, each "key=value". Of the labels under
	// kubernetes.io and k8s.io a node sets only those that kubelets set; an administrator sets the
	// others, such as roles: xebec label node NAME KEY=VALUE.
	Labels []string `yaml:"labels" help:"labels of the node, as key=value"`
	// StaticPods is a directory of manifests of pods that this node runs whatever the control plane
	// says; empty for none.
	StaticPods string `yaml:"staticPods" help:"directory of pods that this node runs by itself (default: none)"`
	MaxPods    int    `yaml:"maxPods" help:"most pods on this node"`
	PodPIDs    int64  `yaml:"podPids" help:"most processes and threads of a pod; -1 for as many as the machine allows"`
	// DrainTimeout is how long a pod that is being deleted waits at most, before its containers are
	// told to stop, for word that every node has taken it out of its service maps. It never takes more
	// than half of the pod's grace period.
	DrainTimeout time.Duration `yaml:"drainTimeout" help:"longest wait for all nodes to drop a pod before it is told to stop"`
	// RegistryDir holds a directory for each registry, of its host's name, with a file hosts.toml as
	// containerd reads it: mirrors to ask first, plain HTTP, certificates.
	RegistryDir           string `yaml:"registryDir" help:"directory that says how registries are reached"`
	MaxParallelImagePulls int    `yaml:"maxParallelImagePulls" help:"most images pulled at a time"`
	// Images that nothing uses are removed when the disk they lie on is fuller than the high
	// threshold, until it is no fuller than the low one.
	ImageGCHighThresholdPercent int           `yaml:"imageGCHighThresholdPercent" help:"share of the disk in use from which unused images are removed; 100 for never"`
	ImageGCLowThresholdPercent  int           `yaml:"imageGCLowThresholdPercent" help:"share of the disk in use at which that ends"`
	ImageMinimumGCAge           time.Duration `yaml:"imageMinimumGCAge" help:"how long an image must have been unused to be removed"`
	// Capacity replaces what the machine has, for machines that are shared: then what is left is what
	// the node's pods leave of it. Each "resource=quantity", of cpu, memory, ephemeral-storage and
	// pid.
	Capacity []string `yaml:"capacity" help:"what the node has, as resource=quantity, where that is not all of the machine"`
	// SystemReserved and KubeReserved are kept from pods, for the system and for the agent and
	// containerd. The same resources.
	SystemReserved []string `yaml:"systemReserved" help:"what is kept for the system, as resource=quantity"`
	KubeReserved   []string `yaml:"kubeReserved" help:"what is kept for the agent and containerd, as resource=quantity"`
	Eviction       Eviction `yaml:"eviction"`
	// ShutdownGracePeriod is how long all pods together have to end when the machine goes down; the
	// last ShutdownGracePeriodCriticalPods of it are for critical pods alone.
	ShutdownGracePeriod             time.Duration `yaml:"shutdownGracePeriod" help:"how long pods have to end when the machine goes down"`
	ShutdownGracePeriodCriticalPods time.Duration `yaml:"shutdownGracePeriodCriticalPods" help:"how much of that is for critical pods alone"`
	// LeaseTTL is after what silence the node counts as lost.
	LeaseTTL time.Duration `yaml:"leaseTTL" help:"how long after its last sign of life the node counts as lost"`

	// Hollow, when not 0, runs so many simulated nodes instead of this one. tls.cert and tls.key serve
	// the metrics then.
	Hollow     int    `yaml:"hollow" help:"run so many simulated nodes, without containers, instead of this one"`
	NamePrefix string `yaml:"namePrefix" help:"what simulated nodes' names begin with"`
	// HollowCACert and HollowCAKey are those of the cluster's authority, which issues each simulated
	// node its certificate. The key makes anyone an administrator of the cluster: it is for
	// measurements only, and an agent of a real node refuses it.
	HollowCACert string `yaml:"hollowCACert" help:"file with the certificate of the cluster's authority, which issues simulated nodes' certificates"`
	HollowCAKey  string `yaml:"hollowCAKey" help:"file with the key of that authority; simulated nodes alone take one, for measurements"`
	// HollowStartsPerSecond is how many simulated nodes start in a second.
	HollowStartsPerSecond float64 `yaml:"hollowStartsPerSecond" help:"how many simulated nodes start in a second"`
}

// Eviction says when the node ends pods because it runs out of something. Signals are
// memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and
// pid.available.
type Eviction struct {
	// Hard are the thresholds at which a pod is ended at once, each "signal<amount"; amounts are
	// quantities or percentages.
	Hard []string `yaml:"hard" help:"thresholds at which a pod is ended at once, as signal<amount"`
	// Soft are those at which a pod is ended in order when they are crossed for as long as
	// softGracePeriod says.
	Soft            []string `yaml:"soft" help:"thresholds at which a pod is ended after a grace period, as signal<amount"`
	SoftGracePeriod []string `yaml:"softGracePeriod" help:"grace periods of the soft thresholds, as signal=duration"`
	// MinimumReclaim is what must be left on top of a threshold before all is well again, each
	// "signal=amount".
	MinimumReclaim []string `yaml:"minimumReclaim" help:"what must be left on top of a crossed threshold, as signal=amount"`
	// PressureTransitionPeriod is how long a condition of the node stays after its last sign.
	PressureTransitionPeriod time.Duration `yaml:"pressureTransitionPeriod" help:"how long a pressure condition stays after its last sign"`
	// MaxPodGracePeriod bounds the time that a pod gets that is ended for a soft threshold.
	MaxPodGracePeriod time.Duration `yaml:"maxPodGracePeriod" help:"most time for a pod that is ended for a soft threshold"`
}

// DefaultConfig returns the configuration that file and flags change.
func DefaultConfig() Config {
	return Config{
		StateDir: "/var/lib/xebec", Listen: ":10250", Metrics: "127.0.0.1:10255",
		Containerd: "/run/containerd/containerd.sock", ContainerdNamespace: "xebec", Cgroup: "/", BPF: "/sys/fs/bpf/xebec",
		ClusterCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16", ClusterDNS: "10.96.0.10", ClusterDomain: "cluster.local", Overlay: string(podnet.OverlayAuto),
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
		ShutdownGracePeriod: 30 * time.Second, ShutdownGracePeriodCriticalPods: 10 * time.Second, NamePrefix: "hollow-", HollowStartsPerSecond: 100,
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
		add("podPids", "%d is neither at least 1 nor -1, for no limit", c.PodPIDs)
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
	for _, file := range []struct{ key, name, what string }{{"hollowCACert", c.HollowCACert, "certificate"}, {"hollowCAKey", c.HollowCAKey, "key"}} {
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
		add("overlay", "%q is none of %s, %s and %s", c.Overlay, podnet.OverlayAuto, podnet.OverlayAlways, podnet.OverlayNever)
	}
	if c.BackendSelection != "random" && c.BackendSelection != "maglev" {
		add("backendSelection", "%q is neither random nor maglev", c.BackendSelection)
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
		if !kind.NodeMaySetLabel(key) {
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
