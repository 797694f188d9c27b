package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/nodes"
)

func nodesCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[nodes.Config]{
		Name:     "nodes",
		Short:    "Node liveness, eviction, pod address ranges",
		Port:     7005,
		Defaults: nodes.DefaultConfig(),
		New: func(_ context.Context, cfg nodes.Config, deps *daemon.Deps) (daemon.Service, error) {
			return nodes.New(cfg, nodes.Deps{Host: deps.Host, Client: client.New(deps.APIServer), Logger: deps.Log, Metrics: deps.Metrics})
		},
	})
}
