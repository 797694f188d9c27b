package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
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
	cl, err := s.client()
	if err != nil {
		return err
	}
	namespace, err := s.defaultNamespace()
	if err != nil {
		return err
	}
	pod, err := s.podOf(ctx, cl, args, namespace)
	if err != nil {
		return err
	}
	containers, err := s.containersOf(pod, o.container, false)
	if err != nil {
		return err
	}
	start := &nodev1.ExecStart{
		Target:    &nodev1.Target{Namespace: namespace, Pod: pod.GetMetadata().GetName()},
		Container: containers[0], Command: command, Stdin: o.stdin, Tty: o.tty,
	}
	fd, isTerminal := terminal(s.In)
	if o.tty && !isTerminal {
		s.notef("%s standard input is no terminal: the command gets none either", s.paintErr(yellow, "Warning:"))
		start.Tty = false
	}
	if start.Tty {
		start.Size = terminalSize(fd)
		if o.stdin {
			// The terminal at this end passes everything through; the one at the other end makes sense of it.
			state, err := term.MakeRaw(fd)
			if err != nil {
				return fmt.Errorf("prepare the terminal: %w", err)
			}
			defer term.Restore(fd, state)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := nodev1.NewNodeServiceClient(s.conn).Exec(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// A stream takes one sender at a time: input and resizes meet in this goroutine. It ends with ctx, or is left behind
	// in a read of standard input that nothing can interrupt when the command ends first.
	input := make(chan []byte)
	if o.stdin {
		go readInput(ctx, s.In, input)
	}
	go sendInput(ctx, func(said said) error {
		request := &nodev1.ExecRequest{Request: &nodev1.ExecRequest_Stdin{Stdin: said.data}}
		switch {
		case said.size != nil:
			request.Request = &nodev1.ExecRequest_Resize{Resize: said.size}
		case said.data == nil:
			request.Request = &nodev1.ExecRequest_CloseStdin{CloseStdin: true}
		}
		return stream.Send(request)
	}, input, start.Tty, fd)
	return s.receiveExec(stream)
}

// readInput sends what it reads, and a nil slice at the end.
func readInput(ctx context.Context, from io.Reader, to chan<- []byte) {
	for {
		buffer := make([]byte, 32<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			select {
			case to <- buffer[:n]:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			select {
			case to <- nil:
			case <-ctx.Done():
			}
			return
		}
	}
}

// said is one thing to pass on: a new size of the terminal, input, or, with neither, the end of the input.
type said struct {
	data []byte
	size *nodev1.TerminalSize
}

// sendInput passes on what is typed and how large the terminal is until ctx ends, or send fails: the receiving side learns why.
func sendInput(ctx context.Context, send func(said) error, input <-chan []byte, tty bool, fd int) {
	resized := make(chan os.Signal, 1)
	if tty {
		signal.Notify(resized, syscall.SIGWINCH)
		defer signal.Stop(resized)
	}
	for {
		var next said
		select {
		case <-ctx.Done():
			return
		case <-resized:
			if next.size = terminalSize(fd); next.size == nil {
				continue
			}
		case next.data = <-input:
		}
		if send(next) != nil {
			return
		}
	}
}

func terminalSize(fd int) *nodev1.TerminalSize {
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return nil
	}
	return &nodev1.TerminalSize{Width: uint32(columns), Height: uint32(rows)}
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
			_, err = s.Out.Write(r.Stdout)
		case *nodev1.ExecResponse_Stderr:
			_, err = s.Err.Write(r.Stderr)
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
