package node

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TaintCommand returns the command taint.
func TaintCommand(s *session.Session) *cobra.Command {
	var c resolve.Choice
	o := &write.Options{}
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "taint node NODE... KEY[=VALUE]:EFFECT... KEY[:EFFECT]-...",
		Short: "Set or remove taints of nodes",
		Long: "Set or remove taints of nodes. The effect is NoSchedule, PreferNoSchedule or NoExecute; NoExecute also evicts pods that\n" +
			"do not tolerate the taint.",
		Example: "  xebec taint node node-1 gpu=true:NoSchedule\n" +
			"  xebec taint node node-1 gpu:NoSchedule-\n" +
			"  xebec taint nodes -l disk=ssd gpu-",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			names, changes, err := splitTaints(s.Kinds, args)
			if err != nil {
				return err
			}
			cl := s.Client()
			refs, err := nodesOf(cmd.Context(), s, cl, names, c)
			if err != nil {
				return err
			}
			return write.Each(cmd.Context(), s, refs, o, func(r resolve.Reference) (scheme.Object, string, error) {
				what := "tainted"
				n, err := write.Update(cmd.Context(), s, cl, r, o, func(n *corev1.Node) error {
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
	c.SelectorFlags(cmd)
	c.AllFlag(cmd)
	o.Flags(cmd)
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace taints that are already set")
	return cmd
}

// taintChange sets a taint or removes one, or all of its key when the effect is empty.
type taintChange struct {
	taint  *corev1.Taint
	remove bool
}

var effects = []string{core.TaintNoSchedule, core.TaintPreferNoSchedule, core.TaintNoExecute}

// splitTaints parts the arguments into names of nodes and changes.
func splitTaints(kinds *scheme.Scheme, args []string) (names []string, changes []taintChange, err error) {
	if len(args) > 0 {
		if k, ok := kinds.ByName(args[0]); ok && k.Name == "Node" {
			args = args[1:]
		}
	}
	for _, a := range args {
		body, remove := strings.CutSuffix(a, "-")
		key, effect, hasEffect := strings.Cut(body, ":")
		key, value, _ := strings.Cut(key, "=")
		if !remove && !hasEffect {
			if len(changes) > 0 {
				return nil, nil, exit.Usagef("invalid taint %q: want KEY[=VALUE]:EFFECT", a)
			}
			names = append(names, a)
			continue
		}
		if (hasEffect || !remove) && !slices.Contains(effects, effect) {
			return nil, nil, exit.Usagef("invalid effect of taint %q: want one of %s", a, strings.Join(effects, ", "))
		}
		changes = append(changes, taintChange{&corev1.Taint{Key: key, Value: value, Effect: effect}, remove})
	}
	if len(changes) == 0 {
		return nil, nil, exit.Usagef("at least one KEY[=VALUE]:EFFECT or KEY- is required")
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
			return false, fmt.Errorf("node/%s has no taint %q", n.GetMetadata().GetName(), strings.TrimSuffix(printer.Taint(c.taint), ":"))
		case c.remove:
			n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, same)
		case at >= 0 && !overwrite && n.Spec.Taints[at].GetValue() != c.taint.GetValue():
			return false, fmt.Errorf(
				"node/%s already has the taint %s: --overwrite replaces it",
				n.GetMetadata().GetName(),
				printer.Taint(n.Spec.Taints[at]),
			)
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
