package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/collector"
)

func collectorCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[collector.Config]{
		Name:     "collector",
		Short:    "Deletes what nobody owns any more, and what is in deleted namespaces",
		Port:     7007,
		Defaults: collector.Config{},
		New: func(_ context.Context, cfg collector.Config, deps *daemon.Deps) (daemon.Service, error) {
			return collector.New(cfg, collector.Deps{Host: deps.Host, Client: client.New(deps.APIServer), Logger: deps.Log, Metrics: deps.Metrics})
		},
	})
}
