package create

import (
	"context"
	"maps"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// manual is the annotation of Jobs that people create from a CronJob, as kubectl sets it.
const manual = "cronjob.kubernetes.io/instantiate"

func jobCommand(s *session.Session) *cobra.Command {
	var image, from string
	var command []string
	o := &write.Options{}
	cmd := &cobra.Command{
		Use:   "job NAME --image=IMAGE [--from=cronjob/NAME] [-- COMMAND [ARGUMENT...]]",
		Short: "Create a job",
		Example: "  xebec create job pi --image=busybox:1 -- sh -c 'echo 3.14'\n" +
			"  xebec create job nightly-now --from=cronjob/nightly",
		Args: nameAndCommand(&command),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			namespace, err := s.DefaultNamespace()
			if err != nil {
				return err
			}
			switch {
			case (image == "") == (from == ""):
				return exit.Usagef("exactly one of --image and --from is required")
			case from != "" && len(command) > 0:
				return exit.Usagef("a command cannot be combined with --from: the job has that of the CronJob")
			}
			j := &batchv1.Job{Spec: &batchv1.JobSpec{Template: podTemplate(args[0], image, core.RestartNever, command)}}
			if from != "" {
				if j, err = jobFrom(cmd.Context(), s, from); err != nil {
					return err
				}
			}
			if j.Metadata == nil {
				j.Metadata = &metav1.ObjectMeta{}
			}
			j.Metadata.Name, j.Metadata.Namespace = args[0], namespace
			return create(cmd.Context(), s, j, o)
		},
	}
	o.Flags(cmd)
	cmd.Flags().StringVar(&image, "image", "", "image of the container")
	cmd.Flags().StringVar(&from, "from", "", "CronJob whose template the job is created from, as cronjob/NAME")
	return cmd
}

// jobFrom makes a Job of the template of a CronJob, which owns it.
func jobFrom(ctx context.Context, s *session.Session, from string) (*batchv1.Job, error) {
	k := kinds.Of(&batchv1.CronJob{})
	ref, err := resolve.One(s, []string{from}, k)
	if err != nil {
		return nil, err
	}
	if ref.Kind != k {
		return nil, exit.Usagef("invalid --from value %q: want cronjob/NAME", from)
	}
	c, err := client.Get[*batchv1.CronJob](ctx, s.Client(), ref.Namespace, ref.Name)
	if err != nil {
		return nil, err
	}
	template := proto.CloneOf(c.GetSpec().GetJobTemplate())
	annotations := map[string]string{manual: "manual"}
	maps.Copy(annotations, template.GetMetadata().GetAnnotations())
	owner := kinds.NewControllerRef(c)
	// To block the owner's deletion would require a right on its finalizers.
	owner.BlockOwnerDeletion = nil
	return &batchv1.Job{
		Metadata: &metav1.ObjectMeta{
			Labels: template.GetMetadata().GetLabels(), Annotations: annotations, OwnerReferences: []*metav1.OwnerReference{owner},
		},
		Spec: template.GetSpec(),
	}, nil
}

func cronJobCommand(s *session.Session) *cobra.Command {
	var image, schedule string
	restart := core.RestartOnFailure
	var command []string
	cmd := creator(s, "cronjob NAME --image=IMAGE --schedule=SCHEDULE [-- COMMAND [ARGUMENT...]]", "Create a CronJob",
		"  xebec create cronjob nightly --image=backup:1 --schedule='30 2 * * *'\n"+
			"  xebec create cronjob often --image=busybox:1 --schedule='*/5 * * * *' -- date",
		func(name, namespace string) (scheme.Object, error) {
			if image == "" || schedule == "" {
				return nil, exit.Usagef("--image and --schedule are required")
			}
			if restart != core.RestartOnFailure && restart != core.RestartNever {
				return nil, exit.Usagef("invalid --restart value %q: want OnFailure or Never", restart)
			}
			return &batchv1.CronJob{
				Metadata: &metav1.ObjectMeta{Name: name, Namespace: namespace},
				Spec: &batchv1.CronJobSpec{Schedule: schedule, JobTemplate: &batchv1.JobTemplateSpec{
					Metadata: &metav1.ObjectMeta{Name: name},
					Spec:     &batchv1.JobSpec{Template: podTemplate(name, image, restart, command)},
				}},
			}, nil
		})
	cmd.Aliases = []string{"cj"}
	cmd.Args = nameAndCommand(&command)
	cmd.Flags().StringVar(&image, "image", "", "image of the container")
	cmd.Flags().StringVar(&schedule, "schedule", "", "times in cron format")
	cmd.Flags().StringVar(&restart, "restart", restart, "restart policy of the pods: OnFailure or Never")
	return cmd
}

// podTemplate makes a template of pods with one container, which has a name.
func podTemplate(name, image, restart string, command []string) *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{Spec: &corev1.PodSpec{
		RestartPolicy: restart, Containers: []*corev1.Container{{Name: name, Image: image, Command: command}},
	}}
}

// nameAndCommand takes one name, and a command after two dashes.
func nameAndCommand(command *[]string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			*command, args = args[dash:], args[:dash]
		}
		if len(args) != 1 {
			return exit.Usagef("exactly one name is required")
		}
		return nil
	}
}
