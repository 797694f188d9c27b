// Package pods runs the pods that are bound to a node: one worker each, which brings what
// containerd runs to what the pod's spec asks for, and tells the control plane what it sees.
//
// A worker is level-triggered. It keeps no picture of its own of what runs: each round asks
// containerd, compares, takes the next steps, and computes the status from what was seen. What
// can't be asked again later (exit codes, how often a container was restarted, when a termination
// began) is written to the pod's directory before it is acted on. Therefore an agent may be killed
// at any moment: the next one continues where it was, starts nothing twice and loses no exit.
//
// A pod's directory also holds the pod itself and the config maps and secrets it refers to, so that
// an agent that starts while no master can be reached goes on with what it last knew.
package pods

import (
	"context"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/pods/tokens"
	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Network connects pods. Package podnet is the real one.
type Network interface {
	// Setup connects the pod whose network namespace is pinned at netns and returns its address. It is
	// idempotent: for a pod that is connected already it returns the same address and disturbs no
	// connection. When it returns, network policies are enforced.
	Setup(ctx context.Context, pod *corev1.Pod, netns string) (netip.Addr, error)
	// Teardown disconnects the pod and frees its address. A pod that is not connected is no error.
	Teardown(ctx context.Context, podUID string) error
}

// Cluster is what pods need of the control plane. All methods take whatever time the control plane
// takes; their errors are those of package apierr.
type Cluster interface {
	status.Writer
	objects.Source
	objects.Watcher
	// RuntimeClass returns the runtime class of a name.
	RuntimeClass(ctx context.Context, name string) (*nodev1.RuntimeClass, error)
	tokens.Issuer
}

// Recorder records what happens to pods as events. It must not block.
type Recorder interface {
	Event(pod *corev1.Pod, eventType, reason, message string)
}

// Config says where and how pods run.
type Config struct {
	// StateDir holds a directory for each pod.
	StateDir string
	// SeccompDir holds the node's own system call filters, which pods name.
	SeccompDir string
	// NodeName is this node's.
	NodeName string
	// HostIP is the node's address, and that of pods in its network.
	HostIP netip.Addr
	// IPv6 returns the IPv6 address that goes with a pod's IPv4 address, or with HostIP; invalid if
	// there is none. Nil: there are none.
	IPv6 func(netip.Addr) netip.Addr
	// MemoryBytes is the node's memory, from which the order in which containers are killed when it
	// runs out follows.
	MemoryBytes int64
	// MilliCPU is the node's number of CPUs in thousandths, which the downward API gives containers
	// without a limit.
	MilliCPU int64
	// Admit, when not nil, returns why the node does not take a pod that it has just been given; empty
	// when it does.
	Admit func(*corev1.Pod) string
	// PodProcesses is the most processes and threads of a pod, 0 or less for no bound.
	PodProcesses int64
	// DNS is the address of the cluster's name server and ClusterDomain the domain it serves, such as
	// "cluster.local".
	DNS           netip.Addr
	ClusterDomain string
	// MeasureEvery is how often it is looked at what pods with limits of their own use of the disk;
	// default 10 s. Evictions counts those beyond their limits, which are ended; nil for no count.
	MeasureEvery time.Duration
	Evictions    *eviction.Metrics
	// DrainTimeout is the maximum time that a deleted pod waits, before its containers get the stop
	// signal, until Drain reports that no node sends it new connections. DrainDelay is the further
	// wait for connections in transit; default 100 ms, negative for none. Both count as part of the
	// grace period and take at most half of it.
	DrainTimeout, DrainDelay time.Duration
	// BackoffInitial and BackoffMax bound the wait before a container that keeps ending is started
	// again and before a failed pull is tried again; default 10 s doubling to 5 min.
	BackoffInitial, BackoffMax time.Duration
	// ConfigRetry is how soon what a container refers to, and is not there or not as it should be, is
	// looked for again; default 3 s.
	ConfigRetry time.Duration

	// Services returns the services of a namespace, whose addresses are environment variables of
	// containers; it may wait a moment for the first list. Nil: there are no such variables.
	Services func(ctx context.Context, namespace string) []*corev1.Service

	Runtime *runtime.Runtime
	Network Network
	// Drain may be nil: then pods leave service maps in their own time.
	Drain    Drain
	Cluster  Cluster
	Recorder Recorder
	Log      *zap.Logger

	// Allocatable is what the node can grant to pods: of CPU MilliCPURequest, of memory MemoryRequest.
	Allocatable runtime.Resources

	followers *objects.Followers
	// room returns why the node can't grant a pod more, nil where nothing is counted.
	room func(uid string, want runtime.Resources) status.Cause
}

func (c *Config) setDefaults() {
	if c.DrainDelay == 0 {
		c.DrainDelay = 100 * time.Millisecond
	}
	if c.MeasureEvery == 0 {
		c.MeasureEvery = 10 * time.Second
	}
	if c.BackoffInitial == 0 {
		c.BackoffInitial = 10 * time.Second
	}
	if c.BackoffMax == 0 {
		c.BackoffMax = 5 * time.Minute
	}
	if c.ConfigRetry == 0 {
		c.ConfigRetry = 3 * time.Second
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Recorder == nil {
		c.Recorder = noEvents{}
	}
	c.followers = objects.NewFollowers(c.Cluster)
}

// ipv6 returns the IPv6 address that goes with an IPv4 address, invalid if there is none.
func (c *Config) ipv6(ip netip.Addr) netip.Addr {
	if c.IPv6 == nil || !ip.IsValid() {
		return netip.Addr{}
	}
	return c.IPv6(ip)
}

// both writes an address and the IPv6 address that goes with it, as the downward API has them.
func (c *Config) both(ip netip.Addr) string {
	if six := c.ipv6(ip); six.IsValid() {
		return ip.String() + "," + six.String()
	}
	return ip.String()
}

type noEvents struct{}

func (noEvents) Event(*corev1.Pod, string, string, string) {}
