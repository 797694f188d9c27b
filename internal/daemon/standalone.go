package daemon

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Standalone describes a process that serves by itself and builds on no other service, as etcd
// does: it gets a configuration, a log and a life, but no server, no connections and no
// registration.
type Standalone[C any] struct {
	// Name is that of the command and in the log.
	Name string
	// Short and Long are the command's help texts.
	Short, Long string
	// Defaults is the configuration that file and flags change.
	Defaults C
	// New makes what runs; it checks the configuration.
	New func(cfg C, log *zap.Logger) (Runner, error)
}

// Runner works until ctx ends and returns nil then.
type Runner interface {
	Run(ctx context.Context) error
}

// standalone is the whole of such a process's file.
type standalone[C any] struct {
	Log       LogConfig `yaml:"log"`
	GCPercent int       `yaml:"gcPercent" help:"growth of the heap between collections, in percent; GOGC overrides it"`
	Service   C         `yaml:",inline"`
}

// StandaloneCommand returns the command that runs the process until its context ends.
func StandaloneCommand[C any](spec Standalone[C]) *cobra.Command {
	common := defaults()
	cfg := &standalone[C]{Log: common.Log, GCPercent: common.GCPercent, Service: spec.Defaults}
	return command(spec.Name, spec.Short, spec.Long, cfg, func(ctx context.Context) error {
		if os.Getenv("GOGC") == "" && cfg.GCPercent > 0 {
			debug.SetGCPercent(cfg.GCPercent)
		}
		log, _, err := newLogger(cfg.Log, os.Stderr)
		if err != nil {
			return err
		}
		log = log.With(zap.String(metrics.KeyService, spec.Name))
		defer func() { _ = log.Sync() }()
		service, err := spec.New(cfg.Service, log)
		if err != nil {
			return fmt.Errorf("start %s: %w", spec.Name, err)
		}
		return service.Run(ctx)
	})
}
