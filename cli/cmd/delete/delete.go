// Package delete holds the command delete.
package delete

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/watch"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
)

type deleteOptions struct {
	resolve.Choice
	write.Options
	wait           bool
	force          bool
	now            bool
	ignoreNotFound bool
	grace          int64
	timeout        time.Duration
	cascade        string
}

// Command returns the command delete.
func Command(s *session.Session) *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | KIND/NAME... | -f FILE",
		Short: "Delete objects and wait until they are gone",
		Example: "  xebec delete pod web-0\n" +
			"  xebec delete -f web.yaml\n" +
			"  xebec delete pods,svc -l app=web\n" +
			"  xebec delete pods --all -n test --wait=false\n" +
			"  xebec delete pod stuck --grace-period=0 --force",
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			return run(cmd.Context(), s, args, o)
		},
	}
	o.FileFlags(cmd, "of the objects to delete")
	o.SelectorFlags(cmd)
	o.NamespacesFlag(cmd)
	o.AllFlag(cmd)
	o.Options.Flags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.wait, "wait", true, "wait until the objects are gone")
	flags.DurationVar(&o.timeout, "timeout", 0, "time limit for waiting, 0 for none")
	flags.Int64Var(&o.grace, "grace-period", -1, "seconds that containers have to terminate, -1 for the value in the object")
	flags.BoolVar(&o.now, "now", false, "same as --grace-period=1")
	flags.BoolVar(&o.force, "force", false, "remove the object without waiting for the node; its containers may keep running for a while")
	flags.StringVar(&o.cascade, "cascade", "background", "deletion of dependents: background, foreground or orphan")
	flags.BoolVar(&o.ignoreNotFound, "ignore-not-found", false, "ignore objects that do not exist")
	return cmd
}

// callOptions turns the flags into those of the call.
func (o *deleteOptions) callOptions() ([]client.DeleteOption, error) {
	var out []client.DeleteOption
	switch {
	case o.now && o.grace >= 0:
		return nil, exit.Usagef("--now and --grace-period cannot be combined")
	case o.now:
		o.grace = 1
	case o.force && o.grace < 0:
		o.grace = 0
	case o.grace == 0 && !o.force:
		// As with kubectl: a pod without grace is removed before its node knows, so that it has to be
		// said twice.
		o.grace = 1
	}
	if o.grace >= 0 {
		out = append(out, client.GracePeriod(o.grace))
	}
	switch o.cascade {
	case "background":
	case "foreground":
		out = append(out, client.Foreground)
	case "orphan":
		out = append(out, client.Orphan)
	default:
		return nil, exit.Usagef("invalid --cascade value %q: want background, foreground or orphan", o.cascade)
	}
	if o.Dry() {
		out = append(out, client.DryRun)
	}
	return out, nil
}

func run(ctx context.Context, s *session.Session, args []string, o deleteOptions) error {
	options, err := o.callOptions()
	if err != nil {
		return err
	}
	cl := s.Client()
	refs, err := resolve.Objects(ctx, s, cl, args, o.Choice)
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		s.Notef("No resources found.")
		return nil
	}
	if o.force && o.grace == 0 {
		s.WarnOnce("immediate deletion does not wait for confirmation that the containers have terminated; they may keep running on the node")
	}
	var gone []watch.Deleted
	failed := false
	for _, r := range refs {
		d, err := deleteOne(ctx, s, cl, r, options, o)
		switch {
		case err == nil && d.UID != "":
			gone = append(gone, d)
		case err == nil, apierr.IsNotFound(err) && o.ignoreNotFound:
		case apierr.IsUnavailable(err) || ctx.Err() != nil:
			return err
		default:
			failed = true
			s.PrintError(err)
		}
	}
	if o.wait && !o.Dry() {
		if err := watch.AwaitGone(ctx, s, cl, gone, o.timeout); err != nil {
			return err
		}
	}
	if failed {
		return exit.Some
	}
	return nil
}

// deleteOne deletes one object and returns it when it is not gone yet.
func deleteOne(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	r resolve.Reference,
	options []client.DeleteOption,
	o deleteOptions,
) (watch.Deleted, error) {
	var uid string
	if o.wait {
		obj, err := client.GetKind(ctx, cl, r.Kind, r.Namespace, r.Name)
		if err != nil {
			return watch.Deleted{}, err
		}
		uid = obj.GetMetadata().GetUid()
		options = append(options, client.IfUID(uid))
	}
	removed, err := client.DeleteKind(ctx, cl, r.Kind, r.Namespace, r.Name, options...)
	if err != nil {
		return watch.Deleted{}, err
	}
	if o.Form.Name == printer.Name {
		s.Printf("%s\n", r)
	} else {
		write.Done(s, o.Dry(), r, map[bool]string{true: "force deleted", false: "deleted"}[o.force])
	}
	if removed {
		return watch.Deleted{}, nil
	}
	return watch.Deleted{Reference: r, UID: uid}, nil
}
