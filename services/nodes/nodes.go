// Package nodes detects nodes that stop renewing their lease, taints them and evicts their pods,
// allocates each node's range of pod addresses, and removes the pods of nodes that do not exist any
// more.
//
// A node's heartbeat is a Lease object under an etcd lease: renewals write nothing, and the object
// vanishes when the lease expires. liveness.go turns that into conditions and taints, zones.go
// limits how many nodes of a zone are tainted so that their pods are evicted, reachability.go asks
// others about a node before eviction.go turns taints into deletions, podcidr.go hands out ranges,
// outofservice.go removes the pods of nodes with the taint out-of-service, orphans.go those of
// nodes that are gone.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/pki"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// heartbeatNamespace holds the nodes' Lease objects.
const heartbeatNamespace = "kube-node-lease"

// Config is what an operator can set.
type Config struct {
	// ClusterCIDR is the range that nodes' pod ranges are cut from; in a dual-stack cluster an IPv4
	// and an IPv6 range, with a comma between. A node that has a range of one family only gets one of
	// the other when that is added.
	ClusterCIDR string `yaml:"clusterCIDR" help:"ranges of pod addresses: IPv4, for dual stack followed by a comma and IPv6"`
	// ServiceCIDR is the range of cluster IPs, or the two ranges, which must be apart from
	// ClusterCIDR.
	ServiceCIDR string `yaml:"serviceCIDR" help:"addresses of services, which clusterCIDR must not overlap"`
	// NodeMaskSize is the prefix length of one node's pod range: 24 gives each node 256 addresses.
	NodeMaskSize int `yaml:"nodeMaskSize" help:"prefix length of one node's pod range"`
	// NodeMaskSize6 is the same for IPv6. A node must have as many addresses of either family.
	NodeMaskSize6 int `yaml:"nodeMaskSize6" help:"prefix length of one node's IPv6 pod range"`
	// EvictAfter is how long pods that name no toleration of their own stay on a node that does not
	// renew its lease and does not answer.
	EvictAfter time.Duration `yaml:"evictAfter" help:"how long pods that name no toleration stay on a node that is unreachable"`
	// EvictNotReadyAfter is how long they stay on a node that says itself that it is not ready.
	EvictNotReadyAfter time.Duration `yaml:"evictNotReadyAfter" help:"how long pods that name no toleration stay on a node that is not ready"`
	// StartGrace is how long a node that has just been made may take until its first heartbeat, and
	// how long nodes that were lost before this instance took the lead have to be heard of before
	// their pods are evicted, unless EvictAfter is less.
	StartGrace time.Duration `yaml:"startGrace"`
	// OrphanGrace is how long a node must have been gone before its pods are: it may be registering
	// again.
	OrphanGrace time.Duration `yaml:"orphanGrace"`

	ZoneConfig `yaml:",inline"`
}

// DefaultConfig is the configuration of a new cluster.
func DefaultConfig() Config {
	return Config{
		ClusterCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16", NodeMaskSize: 24, NodeMaskSize6: 64, EvictAfter: 10 * time.Second,
		EvictNotReadyAfter: 30 * time.Second, StartGrace: 15 * time.Second, OrphanGrace: 20 * time.Second,
		ZoneConfig: ZoneConfig{EvictionRate: 0.1, SecondaryEvictionRate: 0.01, UnhealthyZoneThreshold: 0.55, LargeZoneSize: 50},
	}
}

// Validate reports every setting that makes no sense.
func (c Config) Validate() error {
	var problems []error
	cluster, err := ipalloc.ParseFamilies(c.ClusterCIDR)
	if err != nil {
		problems = append(problems, fmt.Errorf("clusterCIDR: %w", err))
	}
	service, err := ipalloc.ParseFamilies(c.ServiceCIDR)
	if err != nil {
		problems = append(problems, fmt.Errorf("serviceCIDR: %w", err))
	}
	if len(problems) == 0 {
		named := append(ipalloc.Named("clusterCIDR", cluster), ipalloc.Named("serviceCIDR", service)...)
		problems = append(problems, ipalloc.CheckDisjoint(named...))
		if len(cluster) != len(service) {
			problems = append(problems, fmt.Errorf("serviceCIDR: %s and clusterCIDR %s must be of the same families", c.ServiceCIDR, c.ClusterCIDR))
		}
		// As many host bits as IPv4 has: see package podnet.
		most := []int{30, 128 - (32 - c.NodeMaskSize)}
		for i, cidr := range cluster {
			key, bits := []string{"nodeMaskSize", "nodeMaskSize6"}[i], c.maskSizes()[i]
			if bits < cidr.Bits() || bits > most[i] {
				problems = append(problems, fmt.Errorf("%s: must be %d to %d for clusterCIDR %s, is %d", key, cidr.Bits(), most[i], cidr, bits))
			}
		}
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"evictAfter", c.EvictAfter}, {"evictNotReadyAfter", c.EvictNotReadyAfter}, {"startGrace", c.StartGrace}, {"orphanGrace", c.OrphanGrace},
	} {
		if d.d < 0 {
			problems = append(problems, fmt.Errorf("%s: must not be negative, is %s", d.name, d.d))
		}
	}
	return errors.Join(append(problems, c.ZoneConfig.validate())...)
}

func (c Config) maskSizes() []int { return []int{c.NodeMaskSize, c.NodeMaskSize6} }

// Deps is what the service needs from its process.
type Deps struct {
	elected.Deps

	// TLS is the service's identity towards agents, which it asks whether they answer. Nil: none is
	// asked, and a node whose lease has expired counts as lost.
	TLS *pki.Source
}

// Service looks after the nodes while it leads.
type Service struct {
	*elected.Service

	cfg Config
	log *zap.Logger
	// ask is nil when no agent is asked; see reachability.
	ask func(ctx context.Context, from, node *corev1.Node) error
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: deps.Logger}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if deps.TLS != nil {
		s.ask = asker{deps.TLS}.ask
	}
	var err error
	s.Service, err = elected.New(elected.Config{Name: "nodes", Component: "node-controller", Setup: s.setup}, deps.Deps)
	return s, err
}

// byNode indexes pods by the node that they are bound to.
const byNode = "node"

// setup fills a term of leadership.
func (s *Service) setup(t *controller.Term) error {
	nodes := controller.Informer(t, client.InformerOptions[*corev1.Node]{})
	leases := controller.Informer(t, client.InformerOptions[*coordinationv1.Lease]{Namespace: heartbeatNamespace, MetadataOnly: true})
	pods := controller.Informer(t, client.InformerOptions[*corev1.Pod]{
		Indexers:  map[string]func(*corev1.Pod) []string{byNode: func(p *corev1.Pod) []string { return []string{p.GetSpec().GetNodeName()} }},
		Transform: slimPod,
	})

	zones := newZones(s.cfg.ZoneConfig, s.log)
	live := &liveness{client: t.Client(), nodes: nodes, leases: leases, events: s.Events(), zones: zones, startGrace: s.cfg.StartGrace}
	liveController := t.Controller("liveness", 0, live.reconcile)
	controller.For(liveController, nodes)
	nodes.OnChange(func(old, now *corev1.Node) {
		if !zones.observe(old, now) {
			return
		}
		for _, n := range nodes.List() {
			if !isReady(n) {
				liveController.Enqueue(client.KeyOf(n))
			}
		}
	})
	controller.Map(liveController, leases, func(l *coordinationv1.Lease) []controller.Key {
		return []controller.Key{{Name: l.GetMetadata().GetName()}}
	})

	evict := &eviction{
		client: t.Client(), nodes: nodes, pods: pods, events: s.Events(),
		after:     patience{unreachable: s.cfg.EvictAfter, notReady: s.cfg.EvictNotReadyAfter},
		notBefore: time.Now().Add(min(s.cfg.StartGrace, s.cfg.EvictAfter)), seen: map[string]map[string]time.Time{},
	}
	evictController := t.Controller("eviction", 0, evict.reconcile)
	if s.ask != nil {
		reach := &reachability{
			nodes: nodes, events: s.Events(), log: s.log, ask: s.ask, known: evictController.Enqueue, opinions: map[string]opinion{},
		}
		evict.reach, evict.doubt = reach, t.Controller("reachability", reachWorkers, reach.reconcile).Enqueue
	}
	controller.For(evictController, nodes)
	controller.Map(evictController, pods, func(p *corev1.Pod) []controller.Key {
		if p.GetSpec().GetNodeName() == "" {
			return nil
		}
		return []controller.Key{{Name: p.GetSpec().GetNodeName()}}
	})

	fenced := &outOfService{client: t.Client(), nodes: nodes, pods: pods, events: s.Events()}
	fencedController := t.Controller("out-of-service", 0, fenced.reconcile)
	controller.For(fencedController, nodes)
	controller.Map(fencedController, pods, func(p *corev1.Pod) []controller.Key {
		if !awaitsAgent(p) || p.GetSpec().GetNodeName() == "" {
			return nil
		}
		return []controller.Key{{Name: p.GetSpec().GetNodeName()}}
	})

	// Ranges are handed out by one worker: two could pick the same.
	cluster, err := ipalloc.ParseFamilies(s.cfg.ClusterCIDR)
	if err != nil {
		return err
	}
	cidrs := newPodCIDRs(t.Client(), nodes, s.Events(), cluster, s.cfg.maskSizes())
	cidrController := t.Controller("podcidr", 1, cidrs.reconcile)
	controller.For(cidrController, nodes)
	nodes.OnChange(func(_, now *corev1.Node) {
		if now != nil {
			return
		}
		for _, n := range nodes.List() { // one that goes leaves its range to one that has none
			if cidrs.lacks(n) {
				cidrController.Enqueue(client.KeyOf(n))
			}
		}
	})

	lost := &orphans{client: t.Client(), nodes: nodes, pods: pods, since: map[string]time.Time{}, grace: s.cfg.OrphanGrace}
	lostController := t.Controller("orphans", 1, lost.reconcile)
	controller.Map(lostController, nodes, func(n *corev1.Node) []controller.Key { return []controller.Key{client.KeyOf(n)} })
	controller.Map(lostController, pods, func(p *corev1.Pod) []controller.Key {
		if _, ok := nodes.Get("", p.GetSpec().GetNodeName()); ok || p.GetSpec().GetNodeName() == "" {
			return nil
		}
		return []controller.Key{{Name: p.GetSpec().GetNodeName()}}
	})
	return nil
}

// slimPod drops what the controllers never read.
func slimPod(p *corev1.Pod) {
	p.Metadata.ManagedFields = nil
	p.Spec = &corev1.PodSpec{
		NodeName: p.GetSpec().GetNodeName(), Tolerations: p.GetSpec().GetTolerations(),
		TerminationGracePeriodSeconds: p.GetSpec().TerminationGracePeriodSeconds,
	}
	p.Status = &corev1.PodStatus{Phase: p.GetStatus().GetPhase(), Conditions: p.GetStatus().GetConditions()}
}
