// Package delete holds the command delete.
package delete

import (
	"cmp"
	"context"
	"slices"
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
		Long: "Delete objects and wait until they are gone.\n\n" +
			"With a selector or --all, the cluster deletes the objects of a kind and namespace in one call. Without the right to\n" +
			"delete collections, they are listed and deleted one by one.",
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

// callOption is an option of deletions of single objects and of collections.
type callOption interface {
	client.DeleteOption
	client.DeleteCollectionOption
}

// callOptions turns the flags into those of the call.
func (o *deleteOptions) callOptions() ([]callOption, error) {
	var out []callOption
	switch {
	case o.now && o.grace >= 0:
		return nil, exit.Usagef("--now and --grace-period cannot be combined")
	case o.now:
		o.grace = 1
	case o.force && o.grace < 0:
		o.grace = 0
	case o.grace == 0 && !o.force:
		// As with kubectl: a pod without grace is removed before its node has stopped it, so that --force
		// is required too.
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

// deletion is one run of the command.
type deletion struct {
	deleteOptions
	session *session.Session
	client  *client.Client
	options []callOption
	// pending are the deleted objects that are not gone yet.
	pending []watch.Deleted
	// found is set when an object was selected.
	found bool
}

func run(ctx context.Context, s *session.Session, args []string, o deleteOptions) error {
	options, err := o.callOptions()
	if err != nil {
		return err
	}
	refs, err := resolve.References(s, args, o.Choice)
	if err != nil {
		return err
	}
	for _, r := range refs {
		if r.Name == "" {
			if err := o.Selects(r); err != nil {
				return err
			}
		}
	}
	if o.force && o.grace == 0 {
		s.WarnOnce("immediate deletion does not wait for confirmation that the containers have terminated; they may keep running on the node")
	}
	d := &deletion{deleteOptions: o, session: s, client: s.Client(), options: options}
	failed := false
	for _, r := range refs {
		switch err := d.delete(ctx, r); {
		case err == nil, apierr.IsNotFound(err) && o.ignoreNotFound && r.Name != "":
		case apierr.IsUnavailable(err) || ctx.Err() != nil:
			return err
		default:
			failed = true
			s.PrintError(err)
		}
	}
	if !d.found && !failed {
		s.Notef("No resources found.")
	}
	if o.wait && !o.Dry() {
		if err := watch.AwaitGone(ctx, s, d.client, d.pending, o.timeout); err != nil {
			return err
		}
	}
	if failed {
		return exit.Some
	}
	return nil
}

// delete deletes what a reference stands for.
func (d *deletion) delete(ctx context.Context, r resolve.Reference) error {
	if r.Name != "" {
		d.found = true
		return d.object(ctx, r)
	}
	namespaces := []string{r.Namespace}
	if r.Kind.Namespaced && r.Namespace == "" {
		var err error
		if namespaces, err = d.namespaces(ctx, r); err != nil {
			return err
		}
	}
	for _, r.Namespace = range namespaces {
		err := d.collection(ctx, r)
		if apierr.IsForbidden(err) {
			err = d.each(ctx, r, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// namespaces returns the namespaces that have objects of a reference to all namespaces.
func (d *deletion) namespaces(ctx context.Context, r resolve.Reference) ([]string, error) {
	objects, _, err := client.ListKind(ctx, d.client, r.Kind, d.List(r))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, obj := range objects {
		all = append(all, obj.GetMetadata().GetNamespace())
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// collectionTimeout is the time limit for the deletion of a collection if the user sets none.
const collectionTimeout = 5 * time.Minute

// collection deletes the selected objects of a kind in one namespace by one call.
func (d *deletion) collection(ctx context.Context, r resolve.Reference) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(max(d.session.Timeout, 0), collectionTimeout))
	defer cancel()
	options := make([]client.DeleteCollectionOption, len(d.options))
	for i, o := range d.options {
		options[i] = o
	}
	deleted, err := client.DeleteCollectionKind(ctx, d.client, r.Kind, d.List(r), options...)
	if err != nil {
		return err
	}
	for _, o := range deleted {
		d.report(resolve.Reference{Kind: r.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}, o.GetUid(), o.GetRemoved())
	}
	return nil
}

// each lists the selected objects of a kind and deletes one after the other, for a user without the
// right to delete collections. It returns the refusal of that if they may not be listed either.
func (d *deletion) each(ctx context.Context, r resolve.Reference, refusal error) error {
	objects, _, err := client.ListKind(ctx, d.client, r.Kind, d.List(r))
	if apierr.IsForbidden(err) {
		return refusal
	}
	for _, obj := range objects {
		if err := d.object(ctx, resolve.Of(obj)); err != nil && !apierr.IsNotFound(err) {
			return err
		}
	}
	return err
}

// object deletes one object.
func (d *deletion) object(ctx context.Context, r resolve.Reference) error {
	var options []client.DeleteOption
	for _, o := range d.options {
		options = append(options, o)
	}
	var uid string
	if d.wait {
		obj, err := client.GetKind(ctx, d.client, r.Kind, r.Namespace, r.Name)
		if err != nil {
			return err
		}
		uid = obj.GetMetadata().GetUid()
		options = append(options, client.IfUID(uid))
	}
	removed, err := client.DeleteKind(ctx, d.client, r.Kind, r.Namespace, r.Name, options...)
	if err != nil {
		return err
	}
	d.report(r, uid, removed)
	return nil
}

// report prints that an object was deleted and notes it if it is not gone yet.
func (d *deletion) report(r resolve.Reference, uid string, removed bool) {
	d.found = true
	if d.Form.Name == printer.Name {
		d.session.Printf("%s\n", r)
	} else {
		write.Done(d.session, d.Dry(), r, map[bool]string{true: "force deleted", false: "deleted"}[d.force])
	}
	if !removed {
		d.pending = append(d.pending, watch.Deleted{Reference: r, UID: uid})
	}
}
