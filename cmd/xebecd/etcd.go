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
		Short:    "Run a member of etcd with mutual TLS",
		Defaults: etcd.DefaultConfig(),
		New:      func(cfg etcd.Config, log *zap.Logger) (daemon.Runner, error) { return etcd.New(cfg, log) },
	})
	cmd.AddCommand(
		etcdTask("snapshot", "Save a snapshot of the running member of this host to a file",
			snapshotConfig{Member: etcd.DefaultConfig()}, saveEtcd),
		etcdTask("restore", "Restore the data directory of the stopped member of this host from a snapshot",
			restoreConfig{Member: etcd.DefaultConfig()}, restoreEtcd))
	return cmd
}

// snapshotConfig is the configuration of the member and the snapshot file.
type snapshotConfig struct {
	Member etcd.Config `yaml:",inline"`
	File   string      `yaml:"file" help:"snapshot file"`
}

// restoreConfig also has the revision to continue at.
type restoreConfig struct {
	Member   etcd.Config `yaml:",inline"`
	File     string      `yaml:"file" help:"snapshot file"`
	Revision int64       `yaml:"revision" help:"revision to continue at, the same on all members, such as the output of date +%s%6N"`
}

// task is a Runner that terminates.
type task func(context.Context) error

// Run runs the task.
func (t task) Run(ctx context.Context) error { return t(ctx) }

func etcdTask[C any](name, short string, defaults C, do func(context.Context, C, *zap.Logger) error) *cobra.Command {
	return daemon.StandaloneCommand(daemon.Standalone[C]{
		Name: name, Short: short, Defaults: defaults,
		New: func(cfg C, log *zap.Logger) (daemon.Runner, error) {
			return task(func(ctx context.Context) error { return do(ctx, cfg, log) }), nil
		},
	})
}

var errNoFile = errors.New("--file is required")

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
