// Command xebecd is every service of the control plane: each runs as a process of its own, as in "xebecd scheduler".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/version"
)

// services has a command per service, each in a file of its own.
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
		Short:         "The services of a Xebec control plane",
		Version:       version.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	for _, command := range services {
		root.AddCommand(command())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next one ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "xebecd:", err)
		os.Exit(1)
	}
}
