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
	disableEviction  bool
	grace            int64
	timeout          time.Duration
}

// DrainCommand returns the command drain.
func DrainCommand(s *session.Session) *cobra.Command {
	var o drainOptions
	cmd := &cobra.Command{
		Use:   "drain NODE...",
		Short: "Evict all pods from nodes for maintenance",
		Long: "Mark nodes as unschedulable, evict their pods and wait until they are gone. Controllers create replacements on other\n" +
			"nodes. No pod is evicted if some of the pods require a flag that was not given. A pod whose PodDisruptionBudget allows\n" +
			"no disruption now is tried again every 5 seconds; the command shows what it waits for.",
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
	flags.BoolVar(&o.disableEviction, "disable-eviction", false, "delete pods instead of evicting them: their disruption budgets are ignored")
	flags.Int64Var(&o.grace, "grace-period", -1, "seconds that pods have to terminate, -1 for the value in the pod")
	flags.DurationVar(&o.timeout, "timeout", 0, "time limit for evicting and waiting, 0 for none")
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
	var deadline time.Time
	if o.timeout > 0 {
		deadline = time.Now().Add(o.timeout)
	}
	e := &evictions{session: s, client: cl, remove: o.remover(cl), pause: retryEviction, waits: map[*corev1.Pod]string{}}
	doing, done := "evicting", "evicted"
	if o.disableEviction {
		doing, done = "deleting", "deleted"
	}
	for _, p := range evicted {
		s.Notef("%s pod %s", doing, client.KeyOf(p))
	}
	if o.Dry() {
		err = e.try(ctx, evicted)
	} else if err = e.all(ctx, evicted, deadline); err == nil {
		left := o.timeout
		if o.timeout > 0 {
			// What is left of the time is not 0, which would be no limit.
			left = max(time.Until(deadline), time.Second)
		}
		err = watch.AwaitGone(ctx, s, cl, e.gone, left)
	}
	if err != nil {
		return err
	}
	for _, p := range evicted {
		write.Done(s, o.Dry(), resolve.Of(p), done)
	}
	write.Done(s, o.Dry(), node, "drained")
	return nil
}

// remover returns what evicts a pod, or deletes it with --disable-eviction.
func (o drainOptions) remover(cl *client.Client) func(ctx context.Context, p *corev1.Pod) (gone bool, err error) {
	var options []client.DeleteOption
	if o.grace >= 0 {
		options = append(options, client.GracePeriod(o.grace))
	}
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	remove := client.Evict
	if o.disableEviction {
		remove = client.Delete[*corev1.Pod]
	}
	return func(ctx context.Context, p *corev1.Pod) (bool, error) {
		m := p.GetMetadata()
		return remove(ctx, cl, m.GetNamespace(), m.GetName(), append(slices.Clip(options), client.IfUID(m.GetUid()))...)
	}
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
