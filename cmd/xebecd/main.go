// Command xebecd runs a service of the control plane as a process, as in "xebecd scheduler".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // CronJobs have time zones, also on hosts without a database of them.

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/version"
)

// services returns the command of each service. Those that elect a leader are in elected.go.
var services = []func() *cobra.Command{
	etcdCommand,
	apiserverCommand,
	authCommand,
	gatewayCommand,
	schedulerCommand,
	workloadsCommand,
	nodesCommand,
	endpointsCommand,
	collectorCommand,
	cloudCommand,
}

func main() {
	root := &cobra.Command{
		Use:           "xebecd",
		Short:         "Run a service of a Xebec control plane",
		Version:       version.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	for _, command := range services {
		root.AddCommand(command())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process immediately.
	context.AfterFunc(ctx, stop)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "xebecd:", err)
		os.Exit(1)
	}
}
