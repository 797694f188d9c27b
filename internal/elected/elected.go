// Package elected is what all services have in common of which one instance at a time works: an election, controllers
// that run while it is won, and events that tell people what they did.
package elected

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
)

// Deps is what such a service needs from its process.
type Deps struct {
	// Host is the machine, such as "master-1".
	Host string
	// Client reaches the API.
	Client *client.Client
	// Instances returns on which hosts each service has a live instance; see controller.Config. May be nil.
	Instances func() map[string][]string
	// Logger may be nil.
	Logger *zap.Logger
	// Metrics is where metrics are registered; nil for nowhere.
	Metrics prometheus.Registerer
}

// Config says what a service is.
type Config struct {
	// Name is that of the service and of its election.
	Name string
	// Component is who reports the service's events, as Kubernetes names it.
	Component string
	// LeaseTTL is the time to live of the leader's lease; 0 is the default of internal/controller.
	LeaseTTL time.Duration
	// Setup fills a term of leadership; see controller.Config.
	Setup func(*controller.Term) error
}

// Service is embedded in the services.
type Service struct {
	group  *controller.Group
	events *events.Recorder
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	group, err := controller.NewGroup(controller.Config{
		Service: cfg.Name, Host: deps.Host, Client: deps.Client, Setup: cfg.Setup, LeaseTTL: cfg.LeaseTTL,
		Instances: deps.Instances, Logger: deps.Logger, Metrics: deps.Metrics,
	})
	if err != nil {
		return nil, err
	}
	// Not fenced: a deposed leader's last events are true all the same.
	recorder := events.NewRecorder(events.Config{
		Client: deps.Client, Component: cfg.Component, Host: deps.Host, Logger: deps.Logger, Metrics: deps.Metrics,
	})
	return &Service{group: group, events: recorder}, nil
}

// Events returns the recorder of the service's events, which Run writes.
func (s *Service) Events() *events.Recorder { return s.events }

// Register adds the ControllerService to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) { s.group.Register(r) }

// Run stands for election and works while elected, until ctx ends; it then returns nil.
func (s *Service) Run(ctx context.Context) error {
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return s.events.Run(running) })
	g.Go(func() error { return s.group.Run(running) })
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}
