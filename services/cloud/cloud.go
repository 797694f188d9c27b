// Package cloud is the seam to what is around the cluster. Its provider is the cluster's own: it
// gives Services of type LoadBalancer addresses from pools that the operator names, one of each
// family that the service has, which the nodes then answer for on their wire.
//
// An address that is given is an IPAddress object, made in one transaction with the status of the
// service that has it: etcd's comparison of keys keeps two services from one address, as it does
// with cluster IPs. reconcile.go brings one service at a time to what it should have, allocate.go
// chooses what that is, pools.go knows the pools.
package cloud

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/ipalloc"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// Config is what an operator can set.
type Config struct {
	// Pools are the addresses for load balancers, on the nodes' wire: each a range such as
	// 192.0.2.64/27, or 2001:db8::100/120 in a dual-stack cluster, which belongs to the pool
	// "default", or NAME=RANGE. A service gets an address of each of its families from one pool. None:
	// no service gets an address.
	Pools []string `yaml:"pools" help:"addresses for load balancers: ranges, or NAME=RANGE"`
	// Class is the spec.loadBalancerClass that services name to be served from here, besides those
	// that name none.
	Class string `yaml:"class" help:"loadBalancerClass of the services that are served, besides those without one"`
	// ClusterCIDR and ServiceCIDR are the addresses of pods and services, which the pools must be
	// apart from; in a dual-stack cluster an IPv4 and an IPv6 range, with a comma between.
	ClusterCIDR string `yaml:"clusterCIDR" help:"addresses of pods, which pools must not overlap"`
	ServiceCIDR string `yaml:"serviceCIDR" help:"addresses of services, which pools must not overlap"`
	// LeaseTTL is how long a leader that has vanished keeps the others waiting; 0 means the default of
	// internal/controller.
	LeaseTTL time.Duration `yaml:"leaseTTL" help:"time after which a leader that has vanished is replaced (default: 5s)"`
}

// DefaultConfig is the configuration of a new cluster.
func DefaultConfig() Config {
	return Config{Class: "xebec.io/pool", ClusterCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16"}
}

// Validate reports every setting that makes no sense.
func (c *Config) Validate() error {
	_, err := c.parse()
	return err
}

func (c *Config) parse() ([]pool, error) {
	var errs []error
	if wrong := validation.IsQualifiedName(c.Class); len(wrong) > 0 {
		errs = append(errs, fmt.Errorf("class: %q: %s", c.Class, strings.Join(wrong, ", ")))
	}
	var others []ipalloc.Range
	for _, r := range []struct{ name, text string }{{"clusterCIDR", c.ClusterCIDR}, {"serviceCIDR", c.ServiceCIDR}} {
		cidrs, err := ipalloc.ParseFamilies(r.text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
			continue
		}
		others = append(others, ipalloc.Named(r.name, cidrs)...)
	}
	pools, err := parsePools(c.Pools, others...)
	return pools, errors.Join(append(errs, err)...)
}

// Deps is what the service needs from its process.
type Deps = elected.Deps

// Service gives load balancers their addresses while it leads.
type Service struct {
	*elected.Service

	pools   []pool
	class   string
	metrics *poolMetrics
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	pools, err := cfg.parse()
	if err != nil {
		return nil, fmt.Errorf("cloud: %w", err)
	}
	s := &Service{pools: pools, class: cfg.Class, metrics: newPoolMetrics(deps.Metrics, pools)}
	s.Service, err = elected.New(elected.Config{Name: "cloud", Component: "service-controller", LeaseTTL: cfg.LeaseTTL, Setup: s.setup}, deps)
	return s, err
}

// byService indexes allocations by the namespace/name of their service.
const byService = "service"

// setup fills a term of leadership.
func (s *Service) setup(t *controller.Term) error {
	services := controller.Informer(t, client.InformerOptions[*corev1.Service]{
		Transform: func(s *corev1.Service) { s.Metadata.ManagedFields = nil },
	})
	addresses := controller.Informer(t, client.InformerOptions[*networkingv1.IPAddress]{
		LabelSelector: labelManagedBy + "=" + managedBy,
		Indexers: map[string]func(*networkingv1.IPAddress) []string{
			byService: func(a *networkingv1.IPAddress) []string { return []string{holderOf(a).String()} },
		},
	})
	nodes := controller.Informer(t, client.InformerOptions[*corev1.Node]{Transform: onlyAddresses})
	r := &reconciler{
		client: t.Client(), services: services, addresses: addresses, nodes: nodes,
		events: s.Events(), pools: s.pools, class: s.class, metrics: s.metrics,
	}
	// One at a time: two that look for a free address at once would only get into each other's way.
	c := t.Controller("loadbalancer", 1, r.reconcile)
	controller.For(c, services)
	controller.Map(c, addresses, func(a *networkingv1.IPAddress) []controller.Key { return []controller.Key{holderOf(a)} })
	addresses.OnChange(func(_, now *networkingv1.IPAddress) {
		if now == nil {
			r.offer(c)
		}
	})
	return nil
}

// onlyAddresses drops what is not read of nodes, which is nearly all.
func onlyAddresses(n *corev1.Node) {
	n.Metadata.ManagedFields, n.Metadata.Annotations = nil, nil
	n.Spec, n.Status = nil, &corev1.NodeStatus{Addresses: n.GetStatus().GetAddresses()}
}

func holderOf(a *networkingv1.IPAddress) controller.Key {
	ref := a.GetSpec().GetParentRef()
	return controller.Key{Namespace: ref.GetNamespace(), Name: ref.GetName()}
}
