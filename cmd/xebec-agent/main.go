// Command xebec-agent runs a machine as a node of a Xebec cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent"
	// This program also runs as helper processes of containers, such as log writers.
	_ "github.com/xebec-project/xebec/agent/companion"
	"github.com/xebec-project/xebec/agent/resolver"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/version"
)

func main() {
	if resolver.Asked() {
		os.Exit(resolver.Run())
	}
	cmd := daemon.StandaloneCommand(daemon.Standalone[agent.Config]{
		Name:  "xebec-agent",
		Short: "Run this machine as a node of a Xebec cluster",
		Long: "Run the pods bound to this node on containerd, connect their network and route services to them by eBPF.\n" +
			"With --hollow N, simulate N nodes instead, for measurements; this requires the key of the certificate authority of\n" +
			"the cluster, to issue a certificate for each.",
		Defaults: agent.DefaultConfig(),
		New:      func(cfg agent.Config, log *zap.Logger) (daemon.Runner, error) { return agent.New(cfg, log) },
	})
	cmd.Version = version.Version()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process immediately.
	context.AfterFunc(ctx, stop)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "xebec-agent:", err)
		os.Exit(1)
	}
}
