// Package workloads runs what people deploy: it keeps as many pods as a ReplicaSet asks for, and moves a Deployment from
// one ReplicaSet to the next. Instances on several masters elect one that works; see internal/controller.
//
// The arithmetic of a rollout is in rollout.go and touches nothing; replicaset.go and deployment.go read the cluster,
// ask it what should be, and write.
package workloads

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Config is what an operator can set.
type Config struct {
	// Workers is how many objects of each kind are reconciled at once; 0 means the default of internal/controller.
	Workers int `yaml:"workers" help:"how many objects of each kind are reconciled at once, 0 for the default"`
}

// Validate refuses settings that make no sense.
func (c Config) Validate() error {
	if c.Workers < 0 {
		return fmt.Errorf("workers: must not be negative, is %d; 0 means the default", c.Workers)
	}
	return nil
}

// Deps is what the service needs from its process.
type Deps struct {
	// Host is the machine, such as "master-1".
	Host string
	// Client reaches the API.
	Client *client.Client
	// Logger may be nil.
	Logger *zap.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
}

// Service runs the workload controllers while it leads.
type Service struct {
	cfg    Config
	group  *controller.Group
	events *events.Recorder
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, events: events.NewRecorder(events.Config{Client: deps.Client, Component: "workloads", Host: deps.Host, Logger: deps.Logger, Metrics: deps.Metrics})}
	group, err := controller.NewGroup(controller.Config{
		Service: "workloads", Host: deps.Host, Client: deps.Client, Setup: s.setup, Logger: deps.Logger, Metrics: deps.Metrics,
	})
	s.group = group
	return s, err
}

// Register adds the service's ControllerService to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) { s.group.Register(r) }

// Run stands for election and works while elected, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.events.Run(ctx) })
	g.Go(func() error { return s.group.Run(ctx) })
	return g.Wait()
}

// byOwner indexes objects by the uid of their controller.
const byOwner = "controller-uid"

// setup fills a term of leadership.
func (s *Service) setup(t *controller.Term) error {
	deployments := controller.Informer(t, client.InformerOptions[*appsv1.Deployment]{})
	sets := controller.Informer(t, client.InformerOptions[*appsv1.ReplicaSet]{Indexers: ownerIndex[*appsv1.ReplicaSet]()})
	pods := controller.Informer(t, client.InformerOptions[*corev1.Pod]{Indexers: ownerIndex[*corev1.Pod](), Transform: slimPod})

	rs := &replicaSets{client: t.Client(), sets: sets, pods: pods, events: s.events, pending: newPending()}
	rsController := t.Controller("replicaset", s.cfg.Workers, rs.reconcile)
	controller.For(rsController, sets)
	setKind, _ := kind.ByGroupKind("apps", "ReplicaSet")
	controller.Owned(rsController, pods, setKind)
	controller.Map(rsController, pods, rs.matchingOrphan)

	d := &deploymentsController{client: t.Client(), deployments: deployments, sets: sets, pods: pods, events: s.events}
	dController := t.Controller("deployment", s.cfg.Workers, d.reconcile)
	controller.For(dController, deployments)
	deploymentKind, _ := kind.ByGroupKind("apps", "Deployment")
	controller.Owned(dController, sets, deploymentKind)
	controller.Map(dController, sets, d.matchingOrphan)
	return nil
}

func ownerIndex[T kind.Object]() map[string]func(T) []string {
	return map[string]func(T) []string{byOwner: func(o T) []string {
		if ref := kind.ControllerOf(o); ref != nil {
			return []string{ref.GetUid()}
		}
		return []string{""}
	}}
}

// slimPod drops what the controllers never read, which is most of a pod.
func slimPod(p *corev1.Pod) {
	p.Metadata.ManagedFields = nil
	p.Spec = &corev1.PodSpec{NodeName: p.GetSpec().GetNodeName()}
	if p.Status != nil {
		p.Status = &corev1.PodStatus{Phase: p.Status.Phase, Conditions: p.Status.Conditions, ContainerStatuses: restartsOnly(p.Status.ContainerStatuses)}
	}
}

func restartsOnly(statuses []*corev1.ContainerStatus) []*corev1.ContainerStatus {
	slim := make([]*corev1.ContainerStatus, len(statuses))
	for i, s := range statuses {
		slim[i] = &corev1.ContainerStatus{RestartCount: s.GetRestartCount()}
	}
	return slim
}
