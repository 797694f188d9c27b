// Package elected runs services of which one instance at a time works. The instances elect a
// leader; the leader runs a term of controllers (package controller), whose writes its election
// fences, and records events.
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
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
)

// Deps is what such a service needs from its process.
type Deps struct {
	// Host is the machine, such as "master-1"; with the service's name it names this instance.
	Host string
	// Client reaches the API. Terms get copies of it that the election fences.
	Client *client.Client
	// Instances returns the hosts on which each service has a live instance; nothing while that is not
	// known. A leader steps down when its host leads more services than others. Nil: no leader does.
	Instances func() map[string][]string
	// Logger may be nil.
	Logger *zap.Logger
	// Metrics is where metrics are registered; nil for nowhere.
	Metrics prometheus.Registerer
}

// Config says what a service is.
type Config struct {
	// Name is that of the service and of its election, kube-system/<name>, such as "workloads".
	Name string
	// Component is the source of the service's events, as Kubernetes names it.
	Component string
	// LeaseTTL is the time to live of the leader's lease; 0 means DefaultLeaseTTL. The least is 2
	// seconds.
	LeaseTTL time.Duration
	// Setup fills a new term: informers, controllers, tasks. It runs before any of them does, and its
	// error ends the term.
	Setup func(*controller.Term) error
}

// Service is embedded in the services.
type Service struct {
	election *election
	events   *events.Recorder
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	e, err := newElection(cfg, deps)
	if err != nil {
		return nil, err
	}
	// Events are not fenced: the last events of a leader that lost its election are true all the same.
	recorder := events.NewRecorder(events.Config{
		Client: deps.Client, Component: cfg.Component, Host: deps.Host, Logger: deps.Logger, Metrics: deps.Metrics,
	})
	return &Service{election: e, events: recorder}, nil
}

// Events returns the recorder of the service's events, which Run writes.
func (s *Service) Events() *events.Recorder { return s.events }

// Register adds the ControllerService to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	controlv1.RegisterControllerServiceServer(r, &controllerService{election: s.election})
}

// Run stands for election and works while elected, until ctx ends; it then returns nil.
func (s *Service) Run(ctx context.Context) error {
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return s.events.Run(running) })
	g.Go(func() error { return s.election.run(running) })
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}
