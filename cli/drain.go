package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// mirrorPod marks pods that a node runs by itself, whom deleting does not stop.
const mirrorPod = "kubernetes.io/config.mirror"

// nodesOf resolves arguments that are names of nodes, with or without the kind.
func (s *shell) nodesOf(ctx context.Context, cl *client.Client, args []string, c choice) ([]reference, error) {
	if len(args) == 0 && c.labels == "" {
		return nil, usagef("name a node, or select nodes with -l")
	}
	full := make([]string, 0, len(args)+1)
	for _, a := range args {
		if a = strings.TrimPrefix(a, "nodes/"); !strings.Contains(a, "/") {
			a = "node/" + a
		}
		full = append(full, a)
	}
	if len(args) == 0 {
		full = []string{"nodes"}
	}
	refs, err := s.resolve(ctx, cl, full, c)
	if err != nil {
		return nil, err
	}
	for _, r := range refs {
		if r.kind.Name != "Node" {
			return nil, usagef("%s is no node", r)
		}
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("no nodes match %q", c.labels)
	}
	return refs, nil
}

func (s *shell) cordonCommand(cordon bool) *cobra.Command {
	var c choice
	o := &writeOptions{}
	name, short, done := "uncordon", "Let nodes take new pods again", "uncordoned"
	if cordon {
		name, short, done = "cordon", "Keep new pods off nodes", "cordoned"
	}
	cmd := &cobra.Command{
		Use: name + " NODE...", Short: short, Example: "  xebec " + name + " node-1",
		ValidArgsFunction: s.completeOf("nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			cl := s.client()
			refs, err := s.nodesOf(cmd.Context(), cl, args, c)
			if err != nil {
				return err
			}
			return s.changed(cmd.Context(), refs, o, func(r reference) (kind.Object, string, error) {
				return s.cordon(cmd.Context(), cl, r, o, cordon, done)
			})
		},
	}
	c.selectorFlags(cmd)
	o.dryRunFlag(cmd)
	return cmd
}

func (s *shell) cordon(ctx context.Context, cl *client.Client, r reference, o *writeOptions, cordon bool, done string) (kind.Object, string, error) {
	what := "already " + done
	n, err := update(ctx, s, cl, r, o, func(n *corev1.Node) error {
		if n.Spec == nil {
			n.Spec = &corev1.NodeSpec{}
		}
		if n.Spec.Unschedulable != cordon {
			what = done
		}
		n.Spec.Unschedulable = cordon
		return nil
	})
	return n, what, err
}

type drainOptions struct {
	choice
	writeOptions
	ignoreDaemonSets bool
	deleteEmptyDir   bool
	force            bool
	grace            int64
	timeout          time.Duration
}

func (s *shell) drainCommand() *cobra.Command {
	var o drainOptions
	cmd := &cobra.Command{
		Use:   "drain NODE...",
		Short: "Move all pods off nodes, for maintenance",
		Long: "Keep new pods off nodes, delete the pods there and wait until they are gone. Their controllers make new ones\n" +
			"elsewhere. Nothing is deleted when some of the pods need a flag to go.",
		Example: "  xebec drain node-1\n" +
			"  xebec drain node-1 --delete-emptydir-data --force --timeout=2m",
		ValidArgsFunction: s.completeOf("nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			return s.drain(cmd.Context(), args, o)
		},
	}
	o.selectorFlags(cmd)
	o.dryRunFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.ignoreDaemonSets, "ignore-daemonsets", false, "leave the pods of DaemonSets, which would come back at once")
	flags.BoolVar(&o.deleteEmptyDir, "delete-emptydir-data", false, "delete pods with emptyDir volumes, whose data goes with them")
	flags.BoolVar(&o.force, "force", false, "delete pods without a controller too, which nobody makes again")
	flags.Int64Var(&o.grace, "grace-period", -1, "seconds that pods get to stop, -1 for their own")
	flags.DurationVar(&o.timeout, "timeout", 0, "longest time to wait, 0 for no limit")
	return cmd
}

func (s *shell) drain(ctx context.Context, args []string, o drainOptions) error {
	cl := s.client()
	refs, err := s.nodesOf(ctx, cl, args, o.choice)
	if err != nil {
		return err
	}
	for _, r := range refs {
		n, what, err := s.cordon(ctx, cl, r, &o.writeOptions, true, "cordoned")
		if err != nil {
			return err
		}
		if err := s.wrote(&o.writeOptions, n, what); err != nil {
			return err
		}
	}
	for _, r := range refs {
		if err := s.drainNode(ctx, cl, r, o); err != nil {
			return err
		}
	}
	return nil
}

func (s *shell) drainNode(ctx context.Context, cl *client.Client, node reference, o drainOptions) error {
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{FieldSelector: "spec.nodeName=" + node.name})
	if err != nil {
		return err
	}
	evicted, refused := o.sort(pods)
	if len(refused) > 0 {
		return fmt.Errorf("cannot drain %s, which stays cordoned:\n  %s", node, strings.Join(refused, "\n  "))
	}
	var options []client.DeleteOption
	if o.grace >= 0 {
		options = append(options, client.GracePeriod(o.grace))
	}
	if o.dry() {
		options = append(options, client.DryRun)
	}
	var gone []doomed
	for _, p := range evicted {
		r := referenceOf(p)
		s.notef("evicting pod %s/%s", r.namespace, r.name)
		removed, err := client.Delete[*corev1.Pod](ctx, cl, r.namespace, r.name, append(options, client.IfUID(p.GetMetadata().GetUid()))...)
		switch {
		case apierr.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("evict %s in namespace %s: %w", r, r.namespace, err)
		case !removed:
			gone = append(gone, doomed{r, p.GetMetadata().GetUid()})
		}
	}
	if !o.dry() {
		if err := s.awaitGone(ctx, cl, gone, o.timeout); err != nil {
			return err
		}
	}
	for _, p := range evicted {
		s.happened(o.dry(), referenceOf(p), "evicted")
	}
	s.happened(o.dry(), node, "drained")
	return nil
}

// sort parts the pods of a node into those to evict and, in sentences, those that a flag is missing for. Pods that stay
// in any case are in neither.
func (o drainOptions) sort(pods []*corev1.Pod) (evicted []*corev1.Pod, refused []string) {
	for _, p := range pods {
		name := p.GetMetadata().GetNamespace() + "/" + p.GetMetadata().GetName()
		owner := kind.ControllerOf(p)
		hasEmptyDir := slices.ContainsFunc(p.GetSpec().GetVolumes(), func(v *corev1.Volume) bool { return v.GetVolumeSource().GetEmptyDir() != nil })
		_, mirror := p.GetMetadata().GetAnnotations()[mirrorPod]
		switch finished := kind.IsPodFinished(p); {
		case mirror:
		case finished:
			evicted = append(evicted, p)
		case owner.GetKind() == "DaemonSet":
			if !o.ignoreDaemonSets {
				refused = append(refused, name+" belongs to a DaemonSet (--ignore-daemonsets leaves it)")
			}
		case owner == nil && !o.force:
			refused = append(refused, name+" has no controller and would not come back (--force deletes it)")
		case hasEmptyDir && !o.deleteEmptyDir:
			refused = append(refused, name+" has data in an emptyDir volume (--delete-emptydir-data deletes it)")
		default:
			evicted = append(evicted, p)
		}
	}
	return evicted, refused
}

func (s *shell) taintCommand() *cobra.Command {
	var c choice
	o := &writeOptions{}
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "taint node NODE... KEY[=VALUE]:EFFECT... KEY[:EFFECT]-...",
		Short: "Set or remove taints of nodes",
		Long: "Set or remove taints of nodes. The effect is NoSchedule, PreferNoSchedule or NoExecute, which also evicts pods\n" +
			"that do not tolerate the taint.",
		Example: "  xebec taint node node-1 gpu=true:NoSchedule\n" +
			"  xebec taint node node-1 gpu:NoSchedule-\n" +
			"  xebec taint nodes -l disk=ssd gpu-",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			names, changes, err := splitTaints(args)
			if err != nil {
				return err
			}
			cl := s.client()
			refs, err := s.nodesOf(cmd.Context(), cl, names, c)
			if err != nil {
				return err
			}
			return s.changed(cmd.Context(), refs, o, func(r reference) (kind.Object, string, error) {
				what := "tainted"
				n, err := update(cmd.Context(), s, cl, r, o, func(n *corev1.Node) error {
					if n.Spec == nil {
						n.Spec = &corev1.NodeSpec{}
					}
					added, err := changeTaints(n, changes, overwrite)
					if !added {
						what = "untainted"
					}
					return err
				})
				return n, what, err
			})
		},
	}
	c.selectorFlags(cmd)
	c.allFlag(cmd)
	o.flags(cmd)
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "change taints that are set already")
	return cmd
}

// taintChange sets a taint or removes one, or all of its key when the effect is empty.
type taintChange struct {
	taint  *corev1.Taint
	remove bool
}

var effects = []string{kind.TaintNoSchedule, kind.TaintPreferNoSchedule, kind.TaintNoExecute}

// splitTaints parts the arguments into names of nodes and changes.
func splitTaints(args []string) (names []string, changes []taintChange, err error) {
	if len(args) > 0 {
		if k, ok := kind.ByName(args[0]); ok && k.Name == "Node" {
			args = args[1:]
		}
	}
	for _, a := range args {
		body, remove := strings.CutSuffix(a, "-")
		key, effect, hasEffect := strings.Cut(body, ":")
		key, value, _ := strings.Cut(key, "=")
		if !remove && !hasEffect {
			if len(changes) > 0 {
				return nil, nil, usagef("taint %q has no effect: KEY[=VALUE]:EFFECT", a)
			}
			names = append(names, a)
			continue
		}
		if (hasEffect || !remove) && !slices.Contains(effects, effect) {
			return nil, nil, usagef("taint %q: the effect is one of %s", a, strings.Join(effects, ", "))
		}
		changes = append(changes, taintChange{&corev1.Taint{Key: key, Value: value, Effect: effect}, remove})
	}
	if len(changes) == 0 {
		return nil, nil, usagef("which taint? Say KEY[=VALUE]:EFFECT, or KEY- to remove")
	}
	return names, changes, nil
}

// changeTaints reports whether it set any taint rather than only removed some.
func changeTaints(n *corev1.Node, changes []taintChange, overwrite bool) (added bool, err error) {
	for _, c := range changes {
		same := func(t *corev1.Taint) bool {
			return t.GetKey() == c.taint.GetKey() && (c.taint.GetEffect() == "" || t.GetEffect() == c.taint.GetEffect())
		}
		at := slices.IndexFunc(n.Spec.Taints, same)
		switch {
		case c.remove && at < 0:
			return false, fmt.Errorf("node/%s has no taint %q", n.GetMetadata().GetName(), strings.TrimSuffix(taintText(c.taint), ":"))
		case c.remove:
			n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, same)
		case at >= 0 && !overwrite && n.Spec.Taints[at].GetValue() != c.taint.GetValue():
			return false, fmt.Errorf("node/%s has the taint %s already: --overwrite changes it", n.GetMetadata().GetName(), taintText(n.Spec.Taints[at]))
		case at >= 0:
			n.Spec.Taints[at].Value = c.taint.GetValue()
			added = true
		default:
			n.Spec.Taints = append(n.Spec.Taints, &corev1.Taint{Key: c.taint.GetKey(), Value: c.taint.GetValue(), Effect: c.taint.GetEffect()})
			added = true
		}
	}
	return added, nil
}
