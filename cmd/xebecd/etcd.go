package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/etcd"
)

func etcdCommand() *cobra.Command {
	cmd := daemon.StandaloneCommand(daemon.Standalone[etcd.Config]{
		Name:     "etcd",
		Short:    "A member of the cluster's etcd, with mutual TLS and settings that suit the apiserver",
		Defaults: etcd.DefaultConfig(),
		New:      func(cfg etcd.Config, log *zap.Logger) (daemon.Runner, error) { return etcd.New(cfg, log) },
	})
	cmd.AddCommand(etcdFileCommand("snapshot", "Save the database of this host's member, which runs, into a new file", saveEtcd),
		etcdFileCommand("restore", "Make the data directory of this host's member, which does not run, from a snapshot", restoreEtcd))
	return cmd
}

// etcdFile is the member's own configuration and a snapshot's file.
type etcdFile struct {
	Member etcd.Config `yaml:",inline"`
	File   string      `yaml:"file" help:"the snapshot"`
}

// task is a Runner that ends by itself.
type task func(context.Context) error

// Run does it.
func (t task) Run(ctx context.Context) error { return t(ctx) }

func etcdFileCommand(name, short string, do func(context.Context, etcdFile, *zap.Logger) error) *cobra.Command {
	return daemon.StandaloneCommand(daemon.Standalone[etcdFile]{
		Name: name, Short: short, Defaults: etcdFile{Member: etcd.DefaultConfig()},
		New: func(cfg etcdFile, log *zap.Logger) (daemon.Runner, error) {
			if cfg.File == "" {
				return nil, errors.New("--file says which snapshot")
			}
			return task(func(ctx context.Context) error { return do(ctx, cfg, log) }), nil
		},
	})
}

func saveEtcd(ctx context.Context, cfg etcdFile, log *zap.Logger) error {
	saved, err := etcd.Save(ctx, cfg.Member, cfg.File, log)
	if err == nil {
		fmt.Printf("%s: revision %d, %d keys, %d bytes\n", saved.File, saved.Revision, saved.Keys, saved.Size)
	}
	return err
}

func restoreEtcd(_ context.Context, cfg etcdFile, log *zap.Logger) error {
	if _, err := etcd.Inspect(cfg.File, log); err != nil {
		return err
	}
	return etcd.Restore(cfg.Member, cfg.File, log)
}
