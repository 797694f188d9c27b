// Package scale holds the command scale.
package scale

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Command returns the command scale.
func Command(s *session.Session) *cobra.Command {
	var c resolve.Choice
	o := &write.Options{}
	replicas, current := int32(-1), int32(-1)
	cmd := &cobra.Command{
		Use:   "scale KIND NAME... | KIND/NAME... --replicas=N",
		Short: "Set the number of replicas of an object, such as a deployment",
		Example: "  xebec scale deployment/web --replicas=5\n" +
			"  xebec scale deployment web --current-replicas=2 --replicas=3",
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			if replicas < 0 {
				return exit.Usagef("--replicas is required: want a number of at least 0")
			}
			cl := s.Client()
			refs, err := resolve.Objects(cmd.Context(), s, cl, args, c)
			if err != nil {
				return err
			}
			return write.Each(cmd.Context(), s, refs, o, func(r resolve.Reference) (scheme.Object, string, error) {
				obj, err := write.Update(cmd.Context(), s, cl, r, o, func(obj scheme.Object) error { return setReplicas(obj, replicas, current) })
				return obj, "scaled", err
			})
		},
	}
	c.FileFlags(cmd, "of the objects to scale")
	c.SelectorFlags(cmd)
	c.AllFlag(cmd)
	o.Flags(cmd)
	cmd.Flags().Int32Var(&replicas, "replicas", -1, "number of replicas")
	cmd.Flags().Int32Var(&current, "current-replicas", -1, "scale only if the current number of replicas is this")
	return cmd
}

func setReplicas(obj scheme.Object, replicas, current int32) error {
	k := kinds.Of(obj)
	if k.Scale == nil {
		return exit.Usagef("kind %s has no replicas", k.Singular)
	}
	if current >= 0 && k.Replicas(obj) != current {
		return fmt.Errorf("%s does not have %d replicas", resolve.Of(obj), current)
	}
	k.SetReplicas(obj, replicas)
	return nil
}
