package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

type execOptions struct {
	container  string
	stdin, tty bool
}

func (s *shell) execCommand() *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec POD | KIND/NAME -- COMMAND [ARGUMENT...]",
		Short: "Run a command in a container",
		Long: "Run a command in a container. It is not run by a shell: for pipes and variables, run sh -c '...'.\n" +
			"xebec ends with the command's exit code.",
		Example: "  xebec exec web-0 -- ls /\n" +
			"  xebec exec -it web-0 -- sh\n" +
			"  xebec exec deployment/web -c echo -- env\n" +
			"  tar c dir | xebec exec -i web-0 -- tar x -C /tmp",
		ValidArgsFunction: s.completeOf("pods"),
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case dash < 0 && len(args) > 1:
				return usagef("put -- before the command: xebec exec %s -- %s", args[0], args[1])
			case dash != 1 || len(args) < 2:
				return usagef("name one pod and, after --, the command: xebec exec web-0 -- ls /")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.exec(cmd.Context(), args[:1], args[1:], o)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.container, "container", "c", "", "container (default the pod's first)")
	flags.BoolVarP(&o.stdin, "stdin", "i", false, "pass standard input on")
	flags.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	return cmd
}

func (s *shell) exec(ctx context.Context, args, command []string, o execOptions) error {
	pod, container, err := s.containerNamed(ctx, args, o.container)
	if err != nil {
		return err
	}
	start := &nodev1.ExecStart{
		Target:    &nodev1.Target{Namespace: pod.GetMetadata().GetNamespace(), Pod: pod.GetMetadata().GetName()},
		Container: container, Command: command, Stdin: o.stdin,
	}
	end, err := s.openEnd(o.stdin, o.tty, "standard input is no terminal: the command gets none either")
	if err != nil {
		return err
	}
	defer end.close()
	start.Tty, start.Size = end.tty, end.size()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := nodev1.NewNodeServiceClient(s).Exec(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	end.pass(ctx, func(said said) error {
		request := &nodev1.ExecRequest{Request: &nodev1.ExecRequest_Stdin{Stdin: said.data}}
		switch {
		case said.size != nil:
			request.Request = &nodev1.ExecRequest_Resize{Resize: said.size}
		case said.data == nil:
			request.Request = &nodev1.ExecRequest_CloseStdin{CloseStdin: true}
		}
		return stream.Send(request)
	})
	return s.receiveExec(stream)
}

func (s *shell) receiveExec(stream grpc.BidiStreamingClient[nodev1.ExecRequest, nodev1.ExecResponse]) error {
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the node ended the call without an exit code: what became of the command is not known")
		}
		if err != nil {
			return err
		}
		switch r := resp.GetResponse().(type) {
		case *nodev1.ExecResponse_Stdout:
			_, err = raw(s.Out).Write(r.Stdout)
		case *nodev1.ExecResponse_Stderr:
			_, err = raw(s.Err).Write(r.Stderr)
		case *nodev1.ExecResponse_ExitCode:
			if r.ExitCode == 0 {
				return nil
			}
			return &exitError{code: int(r.ExitCode)}
		}
		if err != nil {
			return fmt.Errorf("write the command's output: %w", err)
		}
	}
}
