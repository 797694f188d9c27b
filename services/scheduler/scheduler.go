// Package scheduler assigns pods to nodes. One instance of the service, elected, decides; every
// instance explains.
//
// Plug-ins decide: package framework runs them, and package cache holds what they look at.
// eventhandlers.go fills the cache and the queue from informers, loop.go takes ready pods from the
// queue and chooses their nodes, package binding binds them, report.go shows users why pods fit
// nowhere, and explain.go answers `xebec why`.
package scheduler

import (
	"fmt"

	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/elected"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
)

// DefaultName is the spec.schedulerName that this scheduler serves.
const DefaultName = "default-scheduler"

// Config is what an operator can set.
type Config struct {
	// SchedulerName is the spec.schedulerName of the pods to schedule.
	SchedulerName string `yaml:"schedulerName" help:"spec.schedulerName of the pods to schedule"`
	// BatchSize is how many pods one transaction binds at most, 1 to 500.
	BatchSize int `yaml:"batchSize" help:"how many pods one transaction binds at most, 1 to 500"`
	// Profiles are the names of further schedulers with settings of their own. One with the name
	// SchedulerName changes the settings of that.
	Profiles []Profile `yaml:"schedulerProfiles"`
}

// Profile is a scheduler that this service runs for the pods that name it.
type Profile struct {
	// SchedulerName is the spec.schedulerName of its pods.
	SchedulerName string `yaml:"schedulerName"`
	// Config is what it changes of the plug-ins.
	plugins.Config `yaml:",inline"`
}

// DefaultConfig is the configuration of a new cluster.
func DefaultConfig() Config { return Config{SchedulerName: DefaultName, BatchSize: 250} }

// Validate refuses settings that make no sense.
func (c Config) Validate() error {
	if c.SchedulerName == "" {
		return fmt.Errorf("schedulerName: is required; %s is the usual one", DefaultName)
	}
	if c.BatchSize < 1 || c.BatchSize > client.MaxOperations {
		return fmt.Errorf("batchSize: must be 1 to %d, is %d", client.MaxOperations, c.BatchSize)
	}
	_, err := c.profiles()
	return err
}

// profiles returns the plug-ins of each scheduler name.
func (c Config) profiles() (map[string]framework.Plugins, error) {
	all := map[string]framework.Plugins{}
	for i, p := range c.Profiles {
		at := fmt.Sprintf("schedulerProfiles[%d]", i)
		if problems := validation.IsDNS1123Subdomain(p.SchedulerName); len(problems) > 0 {
			return nil, fmt.Errorf("%s.schedulerName: invalid name %q: %s", at, p.SchedulerName, problems[0])
		}
		if _, taken := all[p.SchedulerName]; taken {
			return nil, fmt.Errorf("%s.schedulerName: %q has a profile already", at, p.SchedulerName)
		}
		enabled, err := plugins.New(p.Config)
		if err != nil {
			return nil, fmt.Errorf("%s.%w", at, err)
		}
		all[p.SchedulerName] = enabled
	}
	if _, changed := all[c.SchedulerName]; !changed {
		all[c.SchedulerName] = plugins.Default()
	}
	return all, nil
}

// newProfiles returns the profiles of a valid configuration by scheduler name.
func (c Config) newProfiles(reserve ...framework.ReservePlugin) map[string]*framework.Profile {
	all, _ := c.profiles() // New has validated them.
	profiles := make(map[string]*framework.Profile, len(all))
	for name, enabled := range all {
		enabled.Reserve = reserve
		profiles[name] = framework.NewProfile(enabled)
	}
	return profiles
}

// Deps is what the service needs from its process.
type Deps = elected.Deps

// Service schedules pods while it leads.
type Service struct {
	*elected.Service

	cfg    Config
	client *client.Client
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, client: deps.Client}
	var err error
	s.Service, err = elected.New(elected.Config{Name: "scheduler", Component: cfg.SchedulerName, Setup: s.setup}, deps)
	return s, err
}

// Register adds the service's own API and its ControllerService to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	s.Service.Register(r)
	schedulerv1.RegisterSchedulerServiceServer(r, &explainer{
		client: s.client, cfg: s.cfg, profiles: s.cfg.newProfiles(), scheduler: s.cfg.SchedulerName,
	})
}

// setup fills a term of leadership.
func (s *Service) setup(t *controller.Term) error {
	nodes := controller.Informer(t, client.InformerOptions[*corev1.Node]{
		Transform: func(n *corev1.Node) { n.Metadata.ManagedFields = nil },
	})
	pods := controller.Informer(t, client.InformerOptions[*corev1.Pod]{Transform: slim})
	namespaces := controller.Informer(t, client.InformerOptions[*corev1.Namespace]{})
	services := controller.Informer(t, client.InformerOptions[*corev1.Service]{})
	budgets := controller.Informer(t, client.InformerOptions[*policyv1.PodDisruptionBudget]{})
	groups := controller.Informer(t, client.InformerOptions[*schedulingv1alpha2.PodGroup]{})
	l := newLoop(s.cfg, t.Client(), pods, s.Events(), t.Logger())
	nodes.OnChange(l.nodeChanged)
	namespaces.OnChange(l.namespaceChanged)
	services.OnChange(l.serviceChanged)
	budgets.OnChange(l.budgetChanged)
	groups.OnChange(l.podGroupChanged)
	pods.OnChange(l.podChanged)
	t.Go("loop", l.run)
	t.Go("reporter", l.reporter.run)
	return nil
}

// slim drops what scheduling never reads.
func slim(p *corev1.Pod) {
	p.Metadata.ManagedFields, p.Metadata.Annotations = nil, nil
	for _, c := range p.GetSpec().GetContainers() {
		*c = corev1.Container{Name: c.GetName(), Image: c.GetImage(), Ports: c.GetPorts(), Resources: c.GetResources()}
	}
	p.Spec.Volumes = nil
	// What a node has granted, and what is in force, differ from what the spec asks for while a pod is
	// resized.
	st := &corev1.PodStatus{
		ContainerStatuses:     slimStatuses(p.GetStatus().GetContainerStatuses()),
		InitContainerStatuses: slimStatuses(p.GetStatus().GetInitContainerStatuses()),
		Phase:                 p.GetStatus().GetPhase(), Conditions: p.GetStatus().GetConditions(),
		NominatedNodeName: p.GetStatus().GetNominatedNodeName(), StartTime: p.GetStatus().GetStartTime(),
	}
	if p.GetSpec().GetResources() != nil {
		st.AllocatedResources, st.Resources = p.GetStatus().GetAllocatedResources(), p.GetStatus().GetResources()
	}
	p.Status = st
}

func slimStatuses(all []*corev1.ContainerStatus) []*corev1.ContainerStatus {
	var kept []*corev1.ContainerStatus
	for _, c := range all {
		if len(c.GetAllocatedResources())+len(c.GetResources().GetRequests()) > 0 {
			kept = append(kept, &corev1.ContainerStatus{
				Name: c.GetName(), AllocatedResources: c.GetAllocatedResources(), Resources: c.GetResources(),
			})
		}
	}
	return kept
}
