// Package workloads is the service that runs the controllers of workloads. Each has a package of
// its own; this one elects the instance that works and wires them to the informers that they share.
//
// A further controller is a package with a Config and an Add function, and one line in setup.
package workloads

import (
	"fmt"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/elected"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/cronjob"
	"github.com/xebec-project/xebec/services/workloads/daemonset"
	"github.com/xebec-project/xebec/services/workloads/deployment"
	"github.com/xebec-project/xebec/services/workloads/disruption"
	"github.com/xebec-project/xebec/services/workloads/job"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
	"github.com/xebec-project/xebec/services/workloads/replicaset"
	"github.com/xebec-project/xebec/services/workloads/replicationcontroller"
	"github.com/xebec-project/xebec/services/workloads/statefulset"
	"github.com/xebec-project/xebec/services/workloads/ttlafterfinished"
)

// Config is what an operator can set.
type Config struct {
	// Workers is how many objects of each kind are reconciled at once; 0 means the default of
	// internal/controller.
	Workers int `yaml:"workers" help:"how many objects of each kind are reconciled at once, 0 for the default"`
}

// Validate returns an error for invalid settings.
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

// setup adds the controllers to a term of leadership.
func (s *Service) setup(t *controller.Term) error {
	sets := controller.Informer(t, client.InformerOptions[*appsv1.ReplicaSet]{Indexers: controller.ByController[*appsv1.ReplicaSet]()})
	pods := controller.Informer(t, client.InformerOptions[*corev1.Pod]{
		Indexers: disruption.Indexed(controller.ByController[*corev1.Pod]()), Transform: podcontrol.Slim,
	})
	revisions := controller.Informer(t, client.InformerOptions[*appsv1.ControllerRevision]{
		Indexers: controller.ByController[*appsv1.ControllerRevision](),
	})
	replicaset.Add(t, replicaset.Config{Workers: s.cfg.Workers, Events: s.Events(), ReplicaSets: sets, Pods: pods})
	replicationcontroller.Add(t, replicationcontroller.Config{Workers: s.cfg.Workers, Events: s.Events(), Pods: pods})
	jobs := controller.Informer(t, client.InformerOptions[*batchv1.Job]{Indexers: controller.ByController[*batchv1.Job]()})
	job.Add(t, job.Config{Workers: s.cfg.Workers, Events: s.Events(), Jobs: jobs, Pods: pods})
	cronJobs := controller.Informer(t, client.InformerOptions[*batchv1.CronJob]{})
	cronjob.Add(t, cronjob.Config{Workers: s.cfg.Workers, Events: s.Events(), CronJobs: cronJobs, Jobs: jobs})
	ttlafterfinished.Add(t, ttlafterfinished.Config{Workers: s.cfg.Workers, Jobs: jobs})
	deployment.Add(t, deployment.Config{Workers: s.cfg.Workers, Events: s.Events(), ReplicaSets: sets, Pods: pods})
	statefulset.Add(t, statefulset.Config{Workers: s.cfg.Workers, Events: s.Events(), Pods: pods, Revisions: revisions})
	disruption.Add(t, disruption.Config{Workers: s.cfg.Workers, Events: s.Events(), Pods: pods, ReplicaSets: sets})
	daemonset.Add(t, daemonset.Config{Workers: s.cfg.Workers, Events: s.Events(), Pods: pods, Revisions: revisions})
	return nil
}
