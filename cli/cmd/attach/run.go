package attach

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// RunCommand returns the command run.
func RunCommand(s *session.Session) *cobra.Command {
	var o attachOptions
	var image, restart, labels string
	var env []string
	var remove, replaces, attach bool
	w := &write.Options{}
	cmd := &cobra.Command{
		Use:   "run NAME --image=IMAGE [-- ARGUMENT...]",
		Short: "Run an image in a new pod",
		Long: "Create a pod with one container. With -i, -t or --attach, attach to the container and exit with its exit code; with\n" +
			"--rm, delete the pod afterwards.",
		Example: "  xebec run web --image=echo:1\n" +
			"  xebec run -it --rm shell --image=busybox:1 --restart=Never -- sh\n" +
			"  echo hello | xebec run -i --rm upper --image=busybox:1 --restart=Never -- tr a-z A-Z",
		Args: nameAndCommand("exactly one name is required"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if image == "" {
				return exit.Usagef("--image is required")
			}
			if err := w.Parse(); err != nil {
				return err
			}
			attach = attach || o.stdin || o.tty
			if remove && !attach {
				return exit.Usagef("--rm requires -i, -t or --attach")
			}
			ctx := cmd.Context()
			cl := s.Client()
			namespace, err := s.DefaultNamespace()
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
						return exit.Usagef("invalid label %q: want KEY=VALUE", pair)
					}
					pod.Metadata.Labels[key] = value
				}
			}
			var warnings []string
			options := []client.CreateOption{client.Warnings(&warnings)}
			if w.Dry() {
				options = append(options, client.DryRun)
			}
			about := resolve.Of(pod)
			pod, err = client.Create(ctx, cl, pod, options...)
			s.Warn(about, warnings)
			if err != nil {
				return err
			}
			if !attach || w.Dry() {
				return write.Report(s, w, pod, "created")
			}
			if remove {
				defer func() {
					m := pod.GetMetadata()
					if _, err := client.Delete[*corev1.Pod](cmd.Context(), cl, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid())); err == nil {
						s.Notef("pod %q deleted", m.GetName())
					} else {
						s.PrintError(err)
					}
				}()
			}
			return attachWhenStarted(ctx, s, cl, pod, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&image, "image", "", "image of the container")
	flags.StringVar(&restart, "restart", "", "restart policy: Always (default), OnFailure or Never")
	flags.StringVarP(&labels, "labels", "l", "", "labels of the pod, as KEY=VALUE,... (default: run=NAME)")
	flags.StringArrayVar(&env, "env", nil, "environment variable of the container, as NAME=VALUE; may be repeated")
	flags.BoolVar(&replaces, "command", false, "the arguments after -- replace the command of the image")
	flags.BoolVar(&remove, "rm", false, "delete the pod when the command ends")
	flags.BoolVar(&attach, "attach", false, "attach to the output of the container")
	w.Flags(cmd)
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
			return exit.Usagef("%s", wanted)
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
			return nil, exit.Usagef("invalid environment variable %q: want NAME=VALUE", pair)
		}
		out = append(out, &corev1.EnvVar{Name: name, Value: value})
	}
	return out, nil
}
