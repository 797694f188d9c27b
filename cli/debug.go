package cli

import (
	"math/rand/v2"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func (s *shell) debugCommand() *cobra.Command {
	var o attachOptions
	var image, target string
	var env []string
	cmd := &cobra.Command{
		Use:   "debug POD --image=IMAGE [-- COMMAND [ARGUMENT...]]",
		Short: "Look into a pod with a container added to it",
		Long: "Add an ephemeral container to a running pod, with tools that its own containers lack. It shares the pod's network, and\n" +
			"with --target the processes of one of its containers. It stays in the pod's spec when it has ended.",
		Example: "  xebec debug -it web-0 --image=busybox:1 --target=web\n" +
			"  xebec debug web-0 --image=busybox:1 -- wget -qO- localhost:8080",
		ValidArgsFunction: s.completeOf("pods"),
		Args:              nameAndCommand("name one pod"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if image == "" {
				return usagef("--image is required")
			}
			ctx := cmd.Context()
			cl := s.client()
			namespace, err := s.defaultNamespace()
			if err != nil {
				return err
			}
			pod, err := s.podOf(ctx, cl, args[:1], namespace)
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
			pod, err = update(ctx, s, cl, referenceOf(pod), &writeOptions{}, func(p *corev1.Pod) error {
				p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, kind.NewEphemeralContainer(added, target))
				return nil
			})
			if err != nil {
				return err
			}
			s.notef("Added container %s to pod %s", o.container, pod.GetMetadata().GetName())
			if !o.stdin && !o.tty && len(args) == 1 {
				return nil
			}
			return s.attachWhenStarted(ctx, cl, pod, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&image, "image", "", "image of the container")
	flags.StringVar(&target, "target", "", "container whose processes it sees")
	flags.StringVarP(&o.container, "container", "c", "", "name of the container (default debugger-xxxxx)")
	flags.StringArrayVar(&env, "env", nil, "variable of the container, as NAME=VALUE")
	o.flags(cmd)
	return cmd
}

func (s *shell) runCommand() *cobra.Command {
	var o attachOptions
	var image, restart, labels string
	var env []string
	var remove, replaces, attach bool
	w := &writeOptions{}
	cmd := &cobra.Command{
		Use:   "run NAME --image=IMAGE [-- ARGUMENT...]",
		Short: "Run an image in a pod of its own",
		Long: "Make a pod of one container. With -i, -t or --attach its streams are joined, and xebec ends with its exit code; with --rm\n" +
			"the pod is deleted then.",
		Example: "  xebec run web --image=echo:1\n" +
			"  xebec run -it --rm shell --image=busybox:1 --restart=Never -- sh\n" +
			"  echo hello | xebec run -i --rm upper --image=busybox:1 --restart=Never -- tr a-z A-Z",
		Args: nameAndCommand("one name is required"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if image == "" {
				return usagef("--image is required")
			}
			if err := w.parse(); err != nil {
				return err
			}
			attach = attach || o.stdin || o.tty
			if remove && !attach {
				return usagef("--rm deletes the pod when it was attached to: add -i, -t or --attach")
			}
			ctx := cmd.Context()
			cl := s.client()
			namespace, err := s.defaultNamespace()
			if err != nil {
				return err
			}
			o.container = args[0]
			c := &corev1.Container{Name: args[0], Image: image, Args: args[1:], Stdin: o.stdin, StdinOnce: o.stdin, Tty: o.tty}
			if replaces {
				c.Command, c.Args = c.Args, nil
			}
			if c.Env, err = variables(env); err != nil {
				return err
			}
			pod := &corev1.Pod{
				Metadata: &metav1.ObjectMeta{Name: args[0], Namespace: namespace, Labels: map[string]string{"run": args[0]}},
				Spec:     &corev1.PodSpec{RestartPolicy: restart, Containers: []*corev1.Container{c}},
			}
			if labels != "" {
				pod.Metadata.Labels = map[string]string{}
				for pair := range strings.SplitSeq(labels, ",") {
					key, value, ok := strings.Cut(pair, "=")
					if !ok {
						return usagef("label %q is not key=value", pair)
					}
					pod.Metadata.Labels[key] = value
				}
			}
			var warnings []string
			options := []client.CreateOption{client.Warnings(&warnings)}
			if w.dry() {
				options = append(options, client.DryRun)
			}
			about := referenceOf(pod)
			pod, err = client.Create(ctx, cl, pod, options...)
			s.warn(about, warnings)
			if err != nil {
				return err
			}
			if !attach || w.dry() {
				return s.wrote(w, pod, "created")
			}
			if remove {
				defer func() {
					m := pod.GetMetadata()
					if _, err := client.Delete[*corev1.Pod](cmd.Context(), cl, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid())); err == nil {
						s.notef("pod %q deleted", m.GetName())
					} else {
						s.printError(err)
					}
				}()
			}
			return s.attachWhenStarted(ctx, cl, pod, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&image, "image", "", "image of the container")
	flags.StringVar(&restart, "restart", "", "restart policy: Always (default), OnFailure or Never")
	flags.StringVarP(&labels, "labels", "l", "", "labels of the pod, as key=value,... (default run=NAME)")
	flags.StringArrayVar(&env, "env", nil, "variable of the container, as NAME=VALUE")
	flags.BoolVar(&replaces, "command", false, "what follows -- replaces the image's command, not only its arguments")
	flags.BoolVar(&remove, "rm", false, "delete the pod at the end")
	flags.BoolVar(&attach, "attach", false, "join the container's output")
	w.flags(cmd)
	o.flags(cmd)
	return cmd
}

// nameAndCommand takes one name and, after --, a command.
func nameAndCommand(wanted string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		names := len(args)
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			names = dash
		}
		if names != 1 {
			return usagef("%s", wanted)
		}
		return nil
	}
}

// variables reads NAME=VALUE pairs.
func variables(pairs []string) ([]*corev1.EnvVar, error) {
	var out []*corev1.EnvVar
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usagef("variable %q is not NAME=VALUE", pair)
		}
		out = append(out, &corev1.EnvVar{Name: name, Value: value})
	}
	return out, nil
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
