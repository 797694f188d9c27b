package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/scheduler"
)

func schedulerCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[scheduler.Config]{
		Name:     "scheduler",
		Short:    "Assigns pods to nodes, and explains why",
		Port:     7003,
		Defaults: scheduler.DefaultConfig(),
		New: func(_ context.Context, cfg scheduler.Config, deps *daemon.Deps) (daemon.Service, error) {
			return scheduler.New(cfg, scheduler.Deps{Host: deps.Host, Client: client.New(deps.APIServer), Logger: deps.Log, Metrics: deps.Metrics})
		},
	})
}
