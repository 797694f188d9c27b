package write

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Each prints what became of objects that a change was made to, one after the other. It goes on
// after objects that refuse it.
func Each(
	ctx context.Context,
	s *session.Session,
	refs []resolve.Reference,
	o *Options,
	change func(resolve.Reference) (scheme.Object, string, error),
) error {
	failed := false
	for _, r := range refs {
		obj, what, err := change(r)
		if err == nil {
			err = Report(s, o, obj, what)
		}
		if err == nil {
			continue
		}
		if len(refs) == 1 || apierr.IsUnavailable(err) || ctx.Err() != nil {
			return err
		}
		failed = true
		s.PrintError(fmt.Errorf("%s: %w", r, err))
	}
	if failed {
		return exit.Some
	}
	return nil
}

// Update changes an object by modify, with the server's warnings printed.
func Update[T scheme.Object](
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	r resolve.Reference,
	o *Options,
	change func(T) error,
	options ...client.UpdateOption,
) (T, error) {
	var warnings []string
	options = append(options, client.Warnings(&warnings))
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	obj, err := Modify(ctx, cl, r, change, options...)
	s.Warn(r, warnings)
	return obj, err
}

// Modify changes an object as it is now, and retries after a conflict with another writer.
func Modify[T scheme.Object](
	ctx context.Context,
	cl *client.Client,
	r resolve.Reference,
	change func(T) error,
	options ...client.UpdateOption,
) (stored T, err error) {
	for range 5 {
		var obj scheme.Object
		if obj, err = client.GetKind(ctx, cl, r.Kind, r.Namespace, r.Name); err != nil {
			return stored, err
		}
		t := obj.(T)
		before := client.Clone(t)
		if err = change(t); err != nil {
			return stored, err
		}
		if proto.Equal(before, t) {
			return t, nil
		}
		if stored, err = client.Update(ctx, cl, t, options...); !apierr.IsConflict(err) {
			return stored, err
		}
	}
	return stored, err
}
