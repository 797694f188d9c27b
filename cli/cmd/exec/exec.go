// Package exec holds the command exec.
package exec

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

type execOptions struct {
	container  string
	stdin, tty bool
}

// Command returns the command exec.
func Command(s *session.Session) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec POD | KIND/NAME -- COMMAND [ARGUMENT...]",
		Short: "Run a command in a container",
		Long: "Run a command in a container, without a shell: for pipes and variables, run sh -c '...'. xebec exits with the exit code\n" +
			"of the command.",
		Example: "  xebec exec web-0 -- ls /\n" +
			"  xebec exec -it web-0 -- sh\n" +
			"  xebec exec deployment/web -c echo -- env\n" +
			"  tar c dir | xebec exec -i web-0 -- tar x -C /tmp",
		ValidArgsFunction: resolve.CompleteOf(s, "pods"),
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case dash < 0 && len(args) > 1:
				return exit.Usagef("-- is required before the command: xebec exec %s -- %s", args[0], args[1])
			case dash != 1 || len(args) < 2:
				return exit.Usagef("one pod and, after --, a command are required: xebec exec web-0 -- ls /")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return exec(cmd.Context(), s, args[:1], args[1:], o)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.container, "container", "c", "", "container (default: the first of the pod)")
	flags.BoolVarP(&o.stdin, "stdin", "i", false, "pass standard input to the container")
	flags.BoolVarP(&o.tty, "tty", "t", false, "allocate a terminal for the command")
	return cmd
}

func exec(ctx context.Context, s *session.Session, args, command []string, o execOptions) error {
	pod, container, err := resolve.Container(ctx, s, args, o.container)
	if err != nil {
		return err
	}
	start := &nodev1.ExecStart{
		Target:    &nodev1.Target{Namespace: pod.GetMetadata().GetNamespace(), Pod: pod.GetMetadata().GetName()},
		Container: container, Command: command, Stdin: o.stdin,
	}
	end, err := s.OpenConsole(o.stdin, o.tty, "standard input is not a terminal: the command runs without a terminal")
	if err != nil {
		return err
	}
	defer end.Close()
	start.Tty, start.Size = end.TTY, end.Size()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := nodev1.NewNodeServiceClient(s).Exec(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	end.Pass(ctx, func(said session.Input) error {
		request := &nodev1.ExecRequest{Request: &nodev1.ExecRequest_Stdin{Stdin: said.Data}}
		switch {
		case said.Size != nil:
			request.Request = &nodev1.ExecRequest_Resize{Resize: said.Size}
		case said.Data == nil:
			request.Request = &nodev1.ExecRequest_CloseStdin{CloseStdin: true}
		}
		return stream.Send(request)
	})
	return receiveExec(s, stream)
}

func receiveExec(s *session.Session, stream grpc.BidiStreamingClient[nodev1.ExecRequest, nodev1.ExecResponse]) error {
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("stream ended without an exit code: the result of the command is unknown")
		}
		if err != nil {
			return err
		}
		switch r := resp.GetResponse().(type) {
		case *nodev1.ExecResponse_Stdout:
			_, err = terminal.Raw(s.Out).Write(r.Stdout)
		case *nodev1.ExecResponse_Stderr:
			_, err = terminal.Raw(s.Err).Write(r.Stderr)
		case *nodev1.ExecResponse_ExitCode:
			if r.ExitCode == 0 {
				return nil
			}
			return &exit.Error{Code: int(r.ExitCode)}
		}
		if err != nil {
			return fmt.Errorf("write output of the command: %w", err)
		}
	}
}
