package attach

import (
	rand "math/rand/v2"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// DebugCommand returns the command debug.
func DebugCommand(s *session.Session) *cobra.Command {
	var o attachOptions
	var image, target string
	var env []string
	cmd := &cobra.Command{
		Use:   "debug POD --image=IMAGE [-- COMMAND [ARGUMENT...]]",
		Short: "Debug a pod by an ephemeral container",
		Long: "Add an ephemeral container to a running pod. It shares the network of the pod and, with --target, the process namespace\n" +
			"of one of its containers. It stays in the spec of the pod after it has terminated.",
		Example: "  xebec debug -it web-0 --image=busybox:1 --target=web\n" +
			"  xebec debug web-0 --image=busybox:1 -- wget -qO- localhost:8080",
		ValidArgsFunction: resolve.CompleteOf(s, "pods"),
		Args:              nameAndCommand("exactly one pod is required"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if image == "" {
				return exit.Usagef("--image is required")
			}
			ctx := cmd.Context()
			cl := s.Client()
			pod, err := resolve.Pod(ctx, s, cl, args[:1])
			if err != nil {
				return err
			}
			if o.container == "" {
				o.container = "debugger-" + suffix()
			}
			added := &corev1.Container{Name: o.container, Image: image, Command: args[1:], Stdin: o.stdin, Tty: o.tty}
			if added.Env, err = variables(env); err != nil {
				return err
			}
			pod, err = write.Update(ctx, s, cl, resolve.Of(pod), &write.Options{}, func(p *corev1.Pod) error {
				p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, core.NewEphemeralContainer(added, target))
				return nil
			}, client.Subresource("ephemeralcontainers"))
			if err != nil {
				return err
			}
			s.Notef("Added container %s to pod %s", o.container, pod.GetMetadata().GetName())
			if !o.stdin && !o.tty && len(args) == 1 {
				return nil
			}
			return attachWhenStarted(ctx, s, cl, pod, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&image, "image", "", "image of the container")
	flags.StringVar(&target, "target", "", "container whose process namespace is shared")
	flags.StringVarP(&o.container, "container", "c", "", "name of the container (default: debugger-xxxxx)")
	flags.StringArrayVar(&env, "env", nil, "environment variable of the container, as NAME=VALUE; may be repeated")
	o.flags(cmd)
	return cmd
}

// suffix is five characters that make a name unlike others.
func suffix() string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	out := make([]byte, 5)
	for i := range out {
		out[i] = letters[rand.IntN(len(letters))]
	}
	return string(out)
}
