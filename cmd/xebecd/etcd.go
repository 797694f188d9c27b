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
	cmd.AddCommand(
		etcdTask("snapshot", "Save the database of this host's member, which runs, into a new file",
			snapshotConfig{Member: etcd.DefaultConfig()}, saveEtcd),
		etcdTask("restore", "Make the data directory of this host's member, which does not run, from a snapshot",
			restoreConfig{Member: etcd.DefaultConfig()}, restoreEtcd))
	return cmd
}

// snapshotConfig is the member's own configuration and a snapshot's file.
type snapshotConfig struct {
	Member etcd.Config `yaml:",inline"`
	File   string      `yaml:"file" help:"the snapshot"`
}

// restoreConfig says besides where revisions go on.
type restoreConfig struct {
	Member   etcd.Config `yaml:",inline"`
	File     string      `yaml:"file" help:"the snapshot"`
	Revision int64       `yaml:"revision" help:"revision to go on at, the same for all members and later than any that clients know, such as that of date +%s%6N (default: the snapshot's and a thousand million)"`
}

// task is a Runner that ends by itself.
type task func(context.Context) error

// Run does it.
func (t task) Run(ctx context.Context) error { return t(ctx) }

func etcdTask[C any](name, short string, defaults C, do func(context.Context, C, *zap.Logger) error) *cobra.Command {
	return daemon.StandaloneCommand(daemon.Standalone[C]{
		Name: name, Short: short, Defaults: defaults,
		New: func(cfg C, log *zap.Logger) (daemon.Runner, error) {
			return task(func(ctx context.Context) error { return do(ctx, cfg, log) }), nil
		},
	})
}

var errNoFile = errors.New("--file says which snapshot")

func saveEtcd(ctx context.Context, cfg snapshotConfig, log *zap.Logger) error {
	if cfg.File == "" {
		return errNoFile
	}
	saved, err := etcd.Save(ctx, cfg.Member, cfg.File, log)
	if err == nil {
		fmt.Printf("%s: revision %d, %d keys, %d bytes\n", saved.File, saved.Revision, saved.Keys, saved.Size)
	}
	return err
}

func restoreEtcd(_ context.Context, cfg restoreConfig, log *zap.Logger) error {
	if cfg.File == "" {
		return errNoFile
	}
	return etcd.Restore(cfg.Member, cfg.File, cfg.Revision, log)
}
