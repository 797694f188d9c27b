// Package endpoints keeps the EndpointSlices of every Service that has a selector: the addresses of
// the pods behind it, with what each is good for. It also watches over cluster IPs, which the
// apiserver allocates: duplicates and missing ones, which only a damaged store can bring about, are
// reported as events.
//
// A pod's change leads to its services through an index of selectors by namespace, and a service's
// slices are computed by a pure function from the pods of its namespace and the slices there are;
// only slices that differ are written.
package endpoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Config is what an operator can set.
type Config struct {
	// Workers is how many services are worked on at once; 0 means the default of internal/controller.
	Workers int `yaml:"workers" help:"services worked on at once (default: 4)"`
	// MaxEndpointsPerSlice is the most endpoints that one slice holds, 1 to 1000; 0 means 100.
	MaxEndpointsPerSlice int `yaml:"maxEndpointsPerSlice" help:"endpoints in one EndpointSlice at most (default: 100)"`
	// LeaseTTL is how long a leader that has vanished keeps the others waiting; 0 means the default of
	// internal/controller.
	LeaseTTL time.Duration `yaml:"leaseTTL" help:"time after which a leader that has vanished is replaced (default: 5s)"`
}

const defaultMaxEndpoints = 100

// Validate returns all settings that make no sense.
func (c *Config) Validate() error {
	var errs []error
	if c.Workers < 0 {
		errs = append(errs, fmt.Errorf("workers: must not be negative, is %d", c.Workers))
	}
	if c.MaxEndpointsPerSlice < 0 || c.MaxEndpointsPerSlice > 1000 {
		errs = append(errs, fmt.Errorf("maxEndpointsPerSlice: must be 1 to 1000, is %d", c.MaxEndpointsPerSlice))
	}
	return errors.Join(errs...)
}

// Deps is what the service needs from its process.
type Deps = elected.Deps

// Service keeps EndpointSlices while it leads.
type Service struct {
	*elected.Service

	cfg          Config
	acknowledger *acknowledger
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	if cfg.MaxEndpointsPerSlice == 0 {
		cfg.MaxEndpointsPerSlice = defaultMaxEndpoints
	}
	s := &Service{cfg: cfg, acknowledger: &acknowledger{}}
	var err error
	s.Service, err = elected.New(elected.Config{
		Name: "endpoints", Component: "endpoint-slice-controller", LeaseTTL: cfg.LeaseTTL, Setup: s.setup,
	}, deps)
	return s, err
}

// Register adds the service's own RPCs and its ControllerService to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	s.Service.Register(r)
	endpointsv1.RegisterEndpointsServiceServer(r, s.acknowledger)
}

const (
	// byNamespace indexes pods and services by their namespace.
	byNamespace = "namespace"
	// byService indexes slices by namespace/name of their service.
	byService = "service"
)

// setup fills a term of leadership.
func (s *Service) setup(t *controller.Term) error {
	services := controller.Informer(t, client.InformerOptions[*corev1.Service]{Transform: slimService})
	pods := controller.Informer(t, client.InformerOptions[*corev1.Pod]{
		Transform: slimPod,
		Indexers: map[string]func(*corev1.Pod) []string{
			byNamespace: func(p *corev1.Pod) []string { return []string{p.GetMetadata().GetNamespace()} },
		},
	})
	// A slice with the former label gets the present one when its service is reconciled, which every
	// start does.
	slices := sliceInformer(t, labelManagedBy+" in ("+managedBy+","+discovery.FormerEndpointSliceController+")")
	r := &reconciler{
		writer: writer{client: t.Client()}, services: services, pods: pods, slices: slices,
		events: s.Events(), selectors: newSelectors(), most: s.cfg.MaxEndpointsPerSlice,
	}
	// Before the controller's own handler, so that the pods which a reconcile meets find the selector.
	services.OnChange(r.selectors.update)
	c := t.Controller("endpointslice", s.cfg.Workers, r.reconcile)
	controller.For(c, services)
	controller.Map(c, slices, func(e *discoveryv1.EndpointSlice) []controller.Key {
		return []controller.Key{serviceOf(e)}
	})
	o := s.setupEndpoints(t, services, pods)
	pods.OnChange(func(old, now *corev1.Pod) {
		r.podChanged(old, now, func(k controller.Key) {
			c.Enqueue(k)
			o.EnqueueAfter(k, endpointsBatch)
		})
	})

	nodes := newRoll(controller.Informer(t, client.InformerOptions[*corev1.Node]{Transform: slimNode}))
	t.Go("acknowledgements", func(ctx context.Context) error {
		s.acknowledger.run(ctx, nodes)
		return nil
	})
	a := &addresses{services: services, events: s.Events()}
	t.Go("clusterip-audit", a.run)
	return nil
}

// setupEndpoints adds the controllers of Endpoints objects. It returns the one that writes them.
func (s *Service) setupEndpoints(
	t *controller.Term, services *client.Informer[*corev1.Service], pods *client.Informer[*corev1.Pod],
) *controller.Controller {
	endpoints := controller.Informer(t, client.InformerOptions[*corev1.Endpoints]{
		Transform: func(e *corev1.Endpoints) { e.Metadata.ManagedFields = nil },
	})
	o := &objects{
		client: t.Client(), services: services, pods: pods, endpoints: endpoints, events: s.Events(), deleted: map[controller.Key]bool{},
	}
	services.OnChange(o.serviceChanged)
	c := t.Controller("endpoints", s.cfg.Workers, o.reconcile)
	controller.For(c, services)
	controller.For(c, endpoints)

	mirrors := &mirror{
		writer: writer{client: t.Client()}, services: services, endpoints: endpoints, slices: sliceInformer(t, labelManagedBy+"="+mirrored),
		events: s.Events(),
	}
	m := t.Controller("endpointslicemirroring", s.cfg.Workers, mirrors.reconcile)
	controller.For(m, services)
	controller.For(m, endpoints)
	controller.Map(m, mirrors.slices, func(e *discoveryv1.EndpointSlice) []controller.Key {
		return []controller.Key{serviceOf(e)}
	})
	return c
}

// sliceInformer adds an informer of the slices with a label, by their service.
func sliceInformer(t *controller.Term, selector string) *client.Informer[*discoveryv1.EndpointSlice] {
	return controller.Informer(t, client.InformerOptions[*discoveryv1.EndpointSlice]{
		LabelSelector: selector,
		Transform:     func(e *discoveryv1.EndpointSlice) { e.Metadata.ManagedFields = nil },
		Indexers: map[string]func(*discoveryv1.EndpointSlice) []string{
			byService: func(e *discoveryv1.EndpointSlice) []string { return []string{serviceOf(e).String()} },
		},
	})
}

// slimService drops what is not read.
func slimService(s *corev1.Service) { s.Metadata.ManagedFields = nil }

// slimNode drops what is not read: only whether the node counts is.
func slimNode(n *corev1.Node) {
	from := n.GetMetadata()
	m := &metav1.ObjectMeta{Name: from.GetName(), Uid: from.GetUid(), ResourceVersion: from.GetResourceVersion()}
	if hollow := from.GetLabels()[core.LabelHollow]; hollow != "" {
		m.Labels = map[string]string{core.LabelHollow: hollow}
	}
	n.Metadata, n.Spec = m, nil
	n.Status = &corev1.NodeStatus{Conditions: n.GetStatus().GetConditions()}
}

// slimPod drops what is not read, which is most of a pod.
func slimPod(p *corev1.Pod) {
	m := p.Metadata
	m.ManagedFields, m.Annotations, m.OwnerReferences, m.Finalizers = nil, nil, nil, nil
	spec, status := p.GetSpec(), p.GetStatus()
	p.Spec = &corev1.PodSpec{NodeName: spec.GetNodeName(), Hostname: spec.GetHostname(), Subdomain: spec.GetSubdomain()}
	for _, c := range spec.GetContainers() {
		if len(c.GetPorts()) > 0 {
			p.Spec.Containers = append(p.Spec.Containers, &corev1.Container{Ports: c.GetPorts()})
		}
	}
	// Sidecars, the init containers that go on, serve ports as well.
	for _, c := range spec.GetInitContainers() {
		if len(c.GetPorts()) > 0 && c.GetRestartPolicy() == "Always" {
			p.Spec.Containers = append(p.Spec.Containers, &corev1.Container{Ports: c.GetPorts()})
		}
	}
	p.Status = &corev1.PodStatus{Phase: status.GetPhase(), PodIp: status.GetPodIp()}
	for _, ip := range status.GetPodIps() {
		if ip.GetIp() != p.Status.PodIp {
			p.Status.PodIps = append(p.Status.PodIps, ip)
		}
	}
	for _, c := range status.GetConditions() {
		if c.GetType() == core.PodReady {
			p.Status.Conditions = []*corev1.PodCondition{{Type: c.GetType(), Status: c.GetStatus()}}
		}
	}
}
