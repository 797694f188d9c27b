package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
)

type deleteOptions struct {
	choice
	writeOptions
	wait           bool
	force          bool
	now            bool
	ignoreNotFound bool
	grace          int64
	timeout        time.Duration
	cascade        string
}

func (s *shell) deleteCommand() *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | KIND/NAME... | -f FILE",
		Short: "Delete objects and wait until they are gone",
		Example: "  xebec delete pod web-0\n" +
			"  xebec delete -f web.yaml\n" +
			"  xebec delete pods,svc -l app=web\n" +
			"  xebec delete pods --all -n test --wait=false\n" +
			"  xebec delete pod stuck --grace-period=0 --force",
		ValidArgsFunction: s.completeKinds(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			return s.delete(cmd.Context(), args, o)
		},
	}
	o.fileFlags(cmd, "with the objects to delete")
	o.selectorFlags(cmd)
	o.namespacesFlag(cmd)
	o.allFlag(cmd)
	o.writeOptions.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.wait, "wait", true, "wait until the objects are gone")
	flags.DurationVar(&o.timeout, "timeout", 0, "longest time to wait, 0 for no limit")
	flags.Int64Var(&o.grace, "grace-period", -1, "seconds that containers get to stop, -1 for the object's own")
	flags.BoolVar(&o.now, "now", false, "same as --grace-period=1")
	flags.BoolVar(&o.force, "force", false, "remove at once, without waiting for the node: its containers may go on for a while")
	flags.StringVar(&o.cascade, "cascade", "background", "what becomes of the objects that these own: background, foreground or orphan")
	flags.BoolVar(&o.ignoreNotFound, "ignore-not-found", false, "objects that do not exist are no error")
	return cmd
}

// callOptions turns the flags into those of the call.
func (o *deleteOptions) callOptions() ([]client.DeleteOption, error) {
	var out []client.DeleteOption
	switch {
	case o.now && o.grace >= 0:
		return nil, usagef("--now is --grace-period=1: leave one of them out")
	case o.now:
		o.grace = 1
	case o.force && o.grace < 0:
		o.grace = 0
	case o.grace == 0 && !o.force:
		// As with kubectl: a pod without grace is removed before its node knows, so that it has to be said twice.
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
		return nil, usagef("--cascade is background, foreground or orphan, not %q", o.cascade)
	}
	if o.dry() {
		out = append(out, client.DryRun)
	}
	return out, nil
}

func (s *shell) delete(ctx context.Context, args []string, o deleteOptions) error {
	options, err := o.callOptions()
	if err != nil {
		return err
	}
	cl := s.client()
	refs, err := s.resolve(ctx, cl, args, o.choice)
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		s.notef("No resources found.")
		return nil
	}
	if o.force && o.grace == 0 {
		s.warnOnce("removed at once: what runs on a node may go on there until the node notices")
	}
	var gone []doomed
	failed := false
	for _, r := range refs {
		d, err := s.deleteOne(ctx, cl, r, options, o)
		switch {
		case err == nil && d.uid != "":
			gone = append(gone, d)
		case err == nil, apierr.IsNotFound(err) && o.ignoreNotFound:
		case apierr.IsUnavailable(err) || ctx.Err() != nil:
			return err
		default:
			failed = true
			s.printError(err)
		}
	}
	if o.wait && !o.dry() {
		if err := s.awaitGone(ctx, cl, gone, o.timeout); err != nil {
			return err
		}
	}
	if failed {
		return errSome
	}
	return nil
}

// doomed is a deleted object that may still be there for a while.
type doomed struct {
	reference
	uid string
}

// deleteOne deletes one object and returns it when it is not gone yet.
func (s *shell) deleteOne(ctx context.Context, cl *client.Client, r reference, options []client.DeleteOption, o deleteOptions) (doomed, error) {
	var uid string
	if o.wait {
		obj, err := client.GetKind(ctx, cl, r.kind, r.namespace, r.name)
		if err != nil {
			return doomed{}, err
		}
		uid = obj.GetMetadata().GetUid()
		options = append(options, client.IfUID(uid))
	}
	removed, err := client.DeleteKind(ctx, cl, r.kind, r.namespace, r.name, options...)
	if err != nil {
		return doomed{}, err
	}
	if o.form.name == formName {
		s.printf("%s\n", r)
	} else {
		s.happened(o.dry(), r, map[bool]string{true: "force deleted", false: "deleted"}[o.force])
	}
	if removed {
		return doomed{}, nil
	}
	return doomed{r, uid}, nil
}

// awaitGone returns when none of the objects exists any more.
func (s *shell) awaitGone(ctx context.Context, cl *client.Client, objects []doomed, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	for _, d := range objects {
		err := s.observe(ctx, cl, d.reference, func(obj kind.Object) (bool, error) {
			return obj == nil || obj.GetMetadata().GetUid() != d.uid, nil
		})
		if errors.Is(err, context.DeadlineExceeded) {
			return timedOut("%s to be gone%s", d.reference, s.holders(cl, d.reference))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// holders says what keeps an object from going.
func (s *shell) holders(cl *client.Client, r reference) string {
	obj, err := client.GetKind(context.Background(), cl, r.kind, r.namespace, r.name)
	if err != nil || len(obj.GetMetadata().GetFinalizers()) == 0 {
		return ""
	}
	return fmt.Sprintf("; it is held by finalizers %v", obj.GetMetadata().GetFinalizers())
}
