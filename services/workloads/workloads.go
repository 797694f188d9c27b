// Package workloads runs what people deploy: it keeps as many pods as a ReplicaSet asks for, and moves a Deployment from
// one ReplicaSet to the next. Instances on several masters elect one that works; see internal/controller.
//
// The arithmetic of a rollout is in rollout.go and touches nothing; replicaset.go and deployment.go read the cluster,
// ask it what should be, and write.
package workloads

import (
	"fmt"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/elected"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
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
type Deps = elected.Deps

// Service runs the workload controllers while it leads.
type Service struct {
	*elected.Service

	cfg Config
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg}
	var err error
	s.Service, err = elected.New(elected.Config{Name: "workloads", Component: "workloads", Setup: s.setup}, deps)
	return s, err
}

// setup fills a term of leadership.
func (s *Service) setup(t *controller.Term) error {
	deployments := controller.Informer(t, client.InformerOptions[*appsv1.Deployment]{})
	sets := controller.Informer(t, client.InformerOptions[*appsv1.ReplicaSet]{Indexers: controller.ByController[*appsv1.ReplicaSet]()})
	pods := controller.Informer(t, client.InformerOptions[*corev1.Pod]{Indexers: controller.ByController[*corev1.Pod](), Transform: slimPod})

	rs := &replicaSets{client: t.Client(), sets: sets, events: s.Events()}
	rs.pods = controller.NewDependents(controller.DependentsConfig[*appsv1.ReplicaSet, *corev1.Pod]{
		Client: t.Client(), Owners: sets, Dependents: pods, Claimable: active,
		Selector: func(rs *appsv1.ReplicaSet) *metav1.LabelSelector { return rs.GetSpec().GetSelector() },
	})
	rsController := t.Controller("replicaset", s.cfg.Workers, rs.reconcile)
	controller.For(rsController, sets)
	rs.pods.Watch(rsController)

	d := &deploymentsController{client: t.Client(), deployments: deployments, pods: pods, events: s.Events()}
	d.sets = controller.NewDependents(controller.DependentsConfig[*appsv1.Deployment, *appsv1.ReplicaSet]{
		Client: t.Client(), Owners: deployments, Dependents: sets,
		Selector: func(d *appsv1.Deployment) *metav1.LabelSelector { return d.GetSpec().GetSelector() },
	})
	dController := t.Controller("deployment", s.cfg.Workers, d.reconcile)
	controller.For(dController, deployments)
	d.sets.Watch(dController)
	return nil
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
