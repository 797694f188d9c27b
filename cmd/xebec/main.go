// Command xebec is the command line of Xebec clusters.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/version"
	"github.com/xebec-project/xebec/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "xebec",
		Short:         "Run and use Xebec clusters",
		Version:       version.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(lab.Command())
	err := root.ExecuteContext(ctx)
	// The command that ran elsewhere has said what is wrong; its exit code is ours.
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
