package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/services/apiserver"
)

func apiserverCommand() *cobra.Command {
	return daemon.Command(daemon.Spec[apiserver.Config]{
		Name:     "apiserver",
		Short:    "Validate, store and serve objects of all kinds",
		Port:     7001,
		Defaults: apiserver.DefaultConfig(),
		New: func(_ context.Context, cfg apiserver.Config, deps *daemon.Deps) (daemon.Service, error) {
			return apiserver.New(cfg, kinds.NewScheme(), deps.Etcd, deps.Log)
		},
	})
}
