package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/watch"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// mirrorPod is the annotation of mirror pods of static pods, which deletion does not stop.
const mirrorPod = "kubernetes.io/config.mirror"

type drainOptions struct {
	resolve.Choice
	write.Options
	ignoreDaemonSets bool
	deleteEmptyDir   bool
	force            bool
	grace            int64
	timeout          time.Duration
}

// DrainCommand returns the command drain.
func DrainCommand(s *session.Session) *cobra.Command {
	var o drainOptions
	cmd := &cobra.Command{
		Use:   "drain NODE...",
		Short: "Evict all pods from nodes for maintenance",
		Long: "Mark nodes as unschedulable, delete their pods and wait until they are gone. Controllers create replacements on other\n" +
			"nodes. No pod is deleted if some of the pods require a flag that was not given.",
		Example: "  xebec drain node-1\n" +
			"  xebec drain node-1 --delete-emptydir-data --force --timeout=2m",
		ValidArgsFunction: resolve.CompleteOf(s, "nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			return drain(cmd.Context(), s, args, o)
		},
	}
	o.SelectorFlags(cmd)
	o.DryRunFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.ignoreDaemonSets, "ignore-daemonsets", false, "ignore pods of DaemonSets")
	flags.BoolVar(&o.deleteEmptyDir, "delete-emptydir-data", false, "delete pods with emptyDir volumes, including their data")
	flags.BoolVar(&o.force, "force", false, "delete pods without a controller too; they are not replaced")
	flags.Int64Var(&o.grace, "grace-period", -1, "seconds that pods have to terminate, -1 for the value in the pod")
	flags.DurationVar(&o.timeout, "timeout", 0, "time limit for waiting, 0 for none")
	return cmd
}

func drain(ctx context.Context, s *session.Session, args []string, o drainOptions) error {
	cl := s.Client()
	refs, err := nodesOf(ctx, s, cl, args, o.Choice)
	if err != nil {
		return err
	}
	for _, r := range refs {
		n, what, err := setUnschedulable(ctx, s, cl, r, &o.Options, true, "cordoned")
		if err != nil {
			return err
		}
		if err := write.Report(s, &o.Options, n, what); err != nil {
			return err
		}
	}
	for _, r := range refs {
		if err := drainNode(ctx, s, cl, r, o); err != nil {
			return err
		}
	}
	return nil
}

func drainNode(ctx context.Context, s *session.Session, cl *client.Client, node resolve.Reference, o drainOptions) error {
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{FieldSelector: "spec.nodeName=" + node.Name})
	if err != nil {
		return err
	}
	evicted, refused := o.sort(pods)
	if len(refused) > 0 {
		return fmt.Errorf("cannot drain %s (it stays cordoned):\n  %s", node, strings.Join(refused, "\n  "))
	}
	var options []client.DeleteOption
	if o.grace >= 0 {
		options = append(options, client.GracePeriod(o.grace))
	}
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	var gone []watch.Deleted
	for _, p := range evicted {
		r := resolve.Of(p)
		s.Notef("evicting pod %s/%s", r.Namespace, r.Name)
		removed, err := client.Delete[*corev1.Pod](ctx, cl, r.Namespace, r.Name, append(options, client.IfUID(p.GetMetadata().GetUid()))...)
		switch {
		case apierr.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("evict %s in namespace %s: %w", r, r.Namespace, err)
		case !removed:
			gone = append(gone, watch.Deleted{Reference: r, UID: p.GetMetadata().GetUid()})
		}
	}
	if !o.Dry() {
		if err := watch.AwaitGone(ctx, s, cl, gone, o.timeout); err != nil {
			return err
		}
	}
	for _, p := range evicted {
		write.Done(s, o.Dry(), resolve.Of(p), "evicted")
	}
	write.Done(s, o.Dry(), node, "drained")
	return nil
}

// sort parts the pods of a node into those to evict and, in sentences, those that a flag is missing
// for. Pods that stay in any case are in neither.
func (o drainOptions) sort(pods []*corev1.Pod) (evicted []*corev1.Pod, refused []string) {
	for _, p := range pods {
		name := p.GetMetadata().GetNamespace() + "/" + p.GetMetadata().GetName()
		owner := kinds.ControllerOf(p)
		hasEmptyDir := slices.ContainsFunc(
			p.GetSpec().GetVolumes(),
			func(v *corev1.Volume) bool { return v.GetVolumeSource().GetEmptyDir() != nil },
		)
		_, mirror := p.GetMetadata().GetAnnotations()[mirrorPod]
		switch finished := core.IsPodFinished(p); {
		case mirror:
		case finished:
			evicted = append(evicted, p)
		case owner.GetKind() == "DaemonSet":
			if !o.ignoreDaemonSets {
				refused = append(refused, name+" is managed by a DaemonSet (--ignore-daemonsets ignores it)")
			}
		case owner == nil && !o.force:
			refused = append(refused, name+" has no controller and would not be replaced (--force deletes it)")
		case hasEmptyDir && !o.deleteEmptyDir:
			refused = append(refused, name+" has an emptyDir volume (--delete-emptydir-data deletes its data)")
		default:
			evicted = append(evicted, p)
		}
	}
	return evicted, refused
}
