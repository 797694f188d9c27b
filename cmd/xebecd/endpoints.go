package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/endpoints"
)

func endpointsCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[endpoints.Config]{
		Name:     "endpoints",
		Short:    "EndpointSlices of services",
		Port:     7006,
		Defaults: endpoints.Config{},
		New: func(_ context.Context, cfg endpoints.Config, deps *daemon.Deps) (daemon.Service, error) {
			return endpoints.New(cfg, endpoints.Deps{Host: deps.Host, Client: client.New(deps.APIServer), Logger: deps.Log, Metrics: deps.Metrics})
		},
	})
}
