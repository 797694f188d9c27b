package main

import (
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/etcd"
)

func etcdCommand() *cobra.Command {
	return daemon.StandaloneCommand(daemon.Standalone[etcd.Config]{
		Name:     "etcd",
		Short:    "A member of the cluster's etcd, with mutual TLS and settings that suit the apiserver",
		Defaults: etcd.DefaultConfig(),
		New:      func(cfg etcd.Config, log *zap.Logger) (daemon.Runner, error) { return etcd.New(cfg, log) },
	})
}
