// Command xebec is the command line of Xebec.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/xebec-project/xebec/cli"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process immediately.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, os.Args[1:], session.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, lab.Command())
	os.Exit(code)
}
