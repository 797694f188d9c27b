// Command xebec-agent makes a machine a node of a Xebec cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent"
	// This program is also the small processes beside containers, such as the writers of their logs.
	_ "github.com/xebec-project/xebec/agent/early"
	"github.com/xebec-project/xebec/agent/resolver"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/version"
)

func main() {
	if resolver.Asked() {
		os.Exit(resolver.Run())
	}
	cmd := daemon.StandaloneCommand(daemon.Standalone[agent.Config]{
		Name:     "xebec-agent",
		Short:    "Run this machine as a node of a Xebec cluster",
		Long:     "Runs the pods bound to this node on containerd, connects them, and routes services to them by eBPF.\nWith --hollow N it simulates N nodes instead, for measurements; only then it takes the key of the cluster's authority,\nby which it issues each of them a certificate.",
		Defaults: agent.DefaultConfig(),
		New:      func(cfg agent.Config, log *zap.Logger) (daemon.Runner, error) { return agent.New(cfg, log) },
	})
	cmd.Version = version.Version()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next one ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "xebec-agent:", err)
		os.Exit(1)
	}
}
