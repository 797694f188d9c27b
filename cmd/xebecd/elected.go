package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/services/cloud"
	"github.com/xebec-project/xebec/services/collector"
	"github.com/xebec-project/xebec/services/endpoints"
	"github.com/xebec-project/xebec/services/nodes"
	"github.com/xebec-project/xebec/services/scheduler"
	"github.com/xebec-project/xebec/services/workloads"
)

func schedulerCommand() *cobra.Command {
	return electedCommand("scheduler", 7003, "Assigns pods to nodes, and explains why", scheduler.DefaultConfig(), scheduler.New)
}

func workloadsCommand() *cobra.Command {
	return electedCommand("workloads", 7004, "Keeps Deployments and ReplicaSets as they should be", workloads.Config{}, workloads.New)
}

func nodesCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[nodes.Config]{
		Name: "nodes", Short: "Node liveness, eviction, pod address ranges", Port: 7005, Defaults: nodes.DefaultConfig(),
		New: func(_ context.Context, cfg nodes.Config, deps *daemon.Deps) (daemon.Service, error) {
			return nodes.New(cfg, nodes.Deps{Deps: electedDeps(deps), TLS: deps.TLS})
		},
	})
}

func endpointsCommand() *cobra.Command {
	return electedCommand("endpoints", 7006, "EndpointSlices of services", endpoints.Config{}, endpoints.New)
}

func collectorCommand() *cobra.Command {
	return electedCommand("collector", 7007, "Deletes what nobody owns any more, and what is in deleted namespaces", collector.Config{}, collector.New)
}

func cloudCommand() *cobra.Command {
	return electedCommand("cloud", 7008, "Gives load balancers their addresses", cloud.DefaultConfig(), cloud.New)
}

// electedCommand is the command of a service of which one instance at a time works.
func electedCommand[C any, S daemon.Service](name string, port int, short string, defaults C, make func(C, elected.Deps) (S, error)) *cobra.Command {
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
