package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/auth"
)

func authCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[auth.Config]{
		Name:     "auth",
		Short:    "Issue and verify tokens of service accounts",
		Port:     7002,
		Defaults: auth.DefaultConfig(),
		New: func(_ context.Context, cfg auth.Config, deps *daemon.Deps) (daemon.Service, error) {
			return auth.New(cfg, auth.Deps{Log: deps.Log, Etcd: deps.Etcd, Client: client.New(deps.APIServer)})
		},
	})
}
