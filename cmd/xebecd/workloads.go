package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/workloads"
)

func workloadsCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[workloads.Config]{
		Name:     "workloads",
		Short:    "Keeps Deployments and ReplicaSets as they should be",
		Port:     7004,
		Defaults: workloads.Config{},
		New: func(_ context.Context, cfg workloads.Config, deps *daemon.Deps) (daemon.Service, error) {
			return workloads.New(cfg, workloads.Deps{Host: deps.Host, Client: client.New(deps.APIServer), Logger: deps.Log, Metrics: deps.Metrics})
		},
	})
}
