package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/services/cloud"
	"github.com/xebec-project/xebec/services/collector"
	"github.com/xebec-project/xebec/services/endpoints"
	"github.com/xebec-project/xebec/services/nodes"
	"github.com/xebec-project/xebec/services/scheduler"
	"github.com/xebec-project/xebec/services/workloads"
)

func schedulerCommand() *cobra.Command {
	return electedCommand("scheduler", 7003, "Assign pods to nodes", scheduler.DefaultConfig(), scheduler.New)
}

func workloadsCommand() *cobra.Command {
	return electedCommand("workloads", 7004, "Reconcile Deployments and ReplicaSets", workloads.Config{}, workloads.New)
}

func nodesCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[nodes.Config]{
		Name: "nodes", Short: "Monitor nodes, evict pods, assign pod address ranges", Port: 7005, Defaults: nodes.DefaultConfig(),
		New: func(_ context.Context, cfg nodes.Config, deps *daemon.Deps) (daemon.Service, error) {
			return nodes.New(cfg, nodes.Deps{Deps: electedDeps(deps), TLS: deps.TLS})
		},
	})
}

func endpointsCommand() *cobra.Command {
	return electedCommand("endpoints", 7006, "Maintain EndpointSlices of services", endpoints.Config{}, endpoints.New)
}

func collectorCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[collector.Config]{
		Name: "collector", Short: "Delete dependents of deleted owners and contents of deleted namespaces", Port: 7007,
		New: func(_ context.Context, cfg collector.Config, deps *daemon.Deps) (daemon.Service, error) {
			return collector.New(cfg, collector.Deps{Deps: electedDeps(deps), Scheme: kinds.NewScheme()})
		},
	})
}

func cloudCommand() *cobra.Command {
	return electedCommand("cloud", 7008, "Assign addresses to load balancers", cloud.DefaultConfig(), cloud.New)
}

// electedCommand returns the command of a service that elects a leader.
func electedCommand[C any, S daemon.Service](
	name string,
	port int,
	short string,
	defaults C,
	make func(C, elected.Deps) (S, error),
) *cobra.Command {
	return daemon.Command(daemon.Spec[C]{
		Name: name, Short: short, Port: port, Defaults: defaults,
		New: func(_ context.Context, cfg C, deps *daemon.Deps) (daemon.Service, error) {
			return make(cfg, electedDeps(deps))
		},
	})
}

// electedDeps is what an elected service needs of its process.
func electedDeps(deps *daemon.Deps) elected.Deps {
	return elected.Deps{
		Host: deps.Host, Client: client.New(deps.APIServer), Instances: deps.Directory.Hosts, Logger: deps.Log, Metrics: deps.Metrics,
	}
}
