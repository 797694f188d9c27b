package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// nodesOf resolves arguments that are names of nodes, with or without the kind.
func nodesOf(ctx context.Context, s *session.Session, cl *client.Client, args []string, c resolve.Choice) ([]resolve.Reference, error) {
	if len(args) == 0 && c.Labels == "" {
		return nil, exit.Usagef("at least one node or -l is required")
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
	refs, err := resolve.Objects(ctx, s, cl, full, c)
	if err != nil {
		return nil, err
	}
	for _, r := range refs {
		if r.Kind.Name != "Node" {
			return nil, exit.Usagef("%s is not a node", r)
		}
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("no nodes match selector %q", c.Labels)
	}
	return refs, nil
}

// CordonCommand returns the command cordon or, if cordon is false, uncordon.
func CordonCommand(s *session.Session, cordon bool) *cobra.Command {
	var c resolve.Choice
	o := &write.Options{}
	name, short, done := "uncordon", "Mark nodes as schedulable", "uncordoned"
	if cordon {
		name, short, done = "cordon", "Mark nodes as unschedulable", "cordoned"
	}
	cmd := &cobra.Command{
		Use: name + " NODE...", Short: short, Example: "  xebec " + name + " node-1",
		ValidArgsFunction: resolve.CompleteOf(s, "nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			cl := s.Client()
			refs, err := nodesOf(cmd.Context(), s, cl, args, c)
			if err != nil {
				return err
			}
			return write.Each(cmd.Context(), s, refs, o, func(r resolve.Reference) (scheme.Object, string, error) {
				return setUnschedulable(cmd.Context(), s, cl, r, o, cordon, done)
			})
		},
	}
	c.SelectorFlags(cmd)
	o.DryRunFlag(cmd)
	return cmd
}

func setUnschedulable(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	r resolve.Reference,
	o *write.Options,
	cordon bool,
	done string,
) (scheme.Object, string, error) {
	what := "already " + done
	n, err := write.Update(ctx, s, cl, r, o, func(n *corev1.Node) error {
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
