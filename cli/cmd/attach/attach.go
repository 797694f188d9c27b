// Package attach holds the commands that attach to the streams of containers: attach, debug and
// run.
package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/cmd/logs"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/cli/watch"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// attachOptions say how to join a container's streams.
type attachOptions struct {
	container  string
	stdin, tty bool
}

func (o *attachOptions) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.stdin, "stdin", "i", false, "pass standard input to the container")
	cmd.Flags().BoolVarP(&o.tty, "tty", "t", false, "attach to the terminal of the container")
}

// Command returns the command attach.
func Command(s *session.Session) *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use:   "attach POD | KIND/NAME",
		Short: "Attach to a running container",
		Long: "Attach to the standard streams of the process in a container. Input requires stdin: true in the container's spec, a\n" +
			"terminal requires tty: true. The container keeps running when this command ends; if the container ends first, xebec\n" +
			"exits with its exit code.",
		Example: "  xebec attach web-0\n" +
			"  xebec attach -it shell -c main",
		ValidArgsFunction: resolve.CompleteOf(s, "pods"),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.Usagef("exactly one pod is required")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			pod, container, err := resolve.Container(cmd.Context(), s, args, o.container)
			if err != nil {
				return err
			}
			o.container = container
			return join(cmd.Context(), s, pod, o)
		},
	}
	cmd.Flags().StringVarP(&o.container, "container", "c", "", "container (default: the first of the pod)")
	o.flags(cmd)
	return cmd
}

// join joins the streams of a pod's container until one of both ends.
func join(ctx context.Context, s *session.Session, pod *corev1.Pod, o attachOptions) error {
	start := &nodev1.AttachStart{
		Target:    &nodev1.Target{Namespace: pod.GetMetadata().GetNamespace(), Pod: pod.GetMetadata().GetName()},
		Container: o.container, Stdin: o.stdin,
	}
	if o.tty && !containerOf(pod, o.container).GetTty() {
		s.Labelf(terminal.Yellow, "Warning:", "container %s has no terminal: its spec does not set tty: true", o.container)
		o.tty = false
	}
	if _, isTerminal := terminal.Descriptor(s.In); isTerminal && o.tty && o.stdin {
		s.Notef("If no prompt appears, press Enter.")
	}
	end, err := s.OpenConsole(o.stdin, o.tty, "standard input is not a terminal")
	if err != nil {
		return err
	}
	defer end.Close()
	start.Size = end.Size()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := nodev1.NewNodeServiceClient(s).Attach(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&nodev1.AttachRequest{Request: &nodev1.AttachRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	end.Pass(ctx, func(said session.Input) error {
		request := &nodev1.AttachRequest{Request: &nodev1.AttachRequest_Stdin{Stdin: said.Data}}
		switch {
		case said.Size != nil:
			request.Request = &nodev1.AttachRequest_Resize{Resize: said.Size}
		case said.Data == nil:
			request.Request = &nodev1.AttachRequest_CloseStdin{CloseStdin: true}
		}
		return stream.Send(request)
	})
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch r := resp.GetResponse().(type) {
		case *nodev1.AttachResponse_Stdout:
			_, err = terminal.Raw(s.Out).Write(r.Stdout)
		case *nodev1.AttachResponse_Stderr:
			_, err = terminal.Raw(s.Err).Write(r.Stderr)
		case *nodev1.AttachResponse_ExitCode:
			if r.ExitCode == 0 {
				return nil
			}
			return &exit.Error{Code: int(r.ExitCode)}
		}
		if err != nil {
			return fmt.Errorf("write output of the container: %w", err)
		}
	}
}

// containerOf is the container of a name in a pod's spec, nil when there is none.
func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	spec := pod.GetSpec()
	for _, c := range slices.Concat(spec.GetContainers(), spec.GetInitContainers(), core.EphemeralContainers(spec)) {
		if c.GetName() == name {
			return c
		}
	}
	return nil
}

// attachWhenStarted waits until a container runs and joins its streams. One that has ended by then
// has left a log to print, and its exit code.
func attachWhenStarted(ctx context.Context, s *session.Session, cl *client.Client, pod *corev1.Pod, o attachOptions) error {
	ended, err := awaitStart(ctx, s, cl, pod, o.container)
	if err != nil {
		return err
	}
	if ended == nil {
		if err = join(ctx, s, pod, o); err == nil {
			return nil
		}
		// It may have ended between the two.
		if apierr.Reason(err) != reasonNotRunning || ctx.Err() != nil {
			return err
		}
		if ended = termination(ctx, s, cl, pod, o.container); ended == nil {
			return err
		}
	}
	options := logs.Options{Container: o.container, Tail: -1, MaxParallel: 1}
	if err := logs.Print(ctx, s, []string{pod.GetMetadata().GetName()}, options); err != nil {
		return err
	}
	if code := ended.GetExitCode(); code != 0 {
		return &exit.Error{Code: int(code)}
	}
	return nil
}

// awaitStart waits until a container runs, or has ended: then it returns how. What keeps it from
// starting is printed once.
func awaitStart(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	pod *corev1.Pod,
	container string,
) (ended *corev1.ContainerStateTerminated, err error) {
	reported := ""
	err = watch.Observe(ctx, s, cl, resolve.Of(pod), func(obj scheme.Object) (bool, error) {
		now, ok := obj.(*corev1.Pod)
		if !ok || now.GetMetadata().GetUid() != pod.GetMetadata().GetUid() {
			return false, fmt.Errorf("pod %s was deleted", pod.GetMetadata().GetName())
		}
		state := stateOf(now, container)
		if state.GetRunning() != nil {
			return true, nil
		}
		if ended = state.GetTerminated(); ended != nil {
			return true, nil
		}
		if core.IsPodFinished(now) {
			return false, fmt.Errorf(
				"pod %s has terminated: %s %s",
				pod.GetMetadata().GetName(),
				now.GetStatus().GetReason(),
				now.GetStatus().GetMessage(),
			)
		}
		if w := state.GetWaiting(); w.GetMessage() != "" && w.GetReason() != reported {
			reported = w.GetReason()
			s.Notef("Waiting for container %s: %s: %s", container, w.GetReason(), w.GetMessage())
		}
		return false, nil
	})
	return ended, err
}

// reasonNotRunning is the agent's word for a container that one can't attach to because it does not
// run.
const reasonNotRunning = "CONTAINER_NOT_RUNNING"

// endLimit is how long the node may take to tell how a container ended that does not run any more.
const endLimit = 10 * time.Second

// termination waits for the terminated state of a container; nil if it is not reported in time.
func termination(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	pod *corev1.Pod,
	container string,
) *corev1.ContainerStateTerminated {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	var ended *corev1.ContainerStateTerminated
	err := watch.Observe(ctx, s, cl, resolve.Of(pod), func(obj scheme.Object) (bool, error) {
		now, ok := obj.(*corev1.Pod)
		if !ok {
			return true, nil
		}
		state := stateOf(now, container)
		// One that is restarted has ended too, and no longer shows how.
		ended = state.GetTerminated()
		return ended != nil || state.GetWaiting() != nil, nil
	})
	if err != nil {
		return nil
	}
	return ended
}

func stateOf(pod *corev1.Pod, container string) *corev1.ContainerState {
	st := pod.GetStatus()
	for _, c := range slices.Concat(st.GetContainerStatuses(), st.GetInitContainerStatuses(), st.GetEphemeralContainerStatuses()) {
		if c.GetName() == container {
			return c.GetState()
		}
	}
	return nil
}
