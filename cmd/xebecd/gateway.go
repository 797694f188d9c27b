package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/gateway"
)

func gatewayCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[gateway.Config]{
		Name:     "gateway",
		Short:    "Authenticate callers, limit them and forward their calls",
		Port:     6443,
		Defaults: gateway.DefaultConfig(),
		New: func(_ context.Context, cfg gateway.Config, deps *daemon.Deps) (daemon.Service, error) {
			return gateway.New(cfg, gateway.Deps{
				Log:       deps.Log,
				TLS:       deps.TLS,
				Etcd:      deps.Etcd,
				Directory: deps.Directory,
				Metrics:   deps.Metrics,
			})
		},
	})
}
