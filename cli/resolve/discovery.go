package resolve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/cli/jsonpath"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// discover adds to the scheme of the session the kinds, in all versions, that the cluster serves
// and this program was not compiled with. A cluster without DiscoveryService has no such kinds. The
// cluster is asked once in a session. The error lists the kinds that could not be added.
func discover(s *session.Session) error {
	if s.Discovered {
		return nil
	}
	ctx, cancel := s.Bounded(context.Background())
	defer cancel()
	server := apiv1.NewDiscoveryServiceClient(s)
	listed, err := server.ListKinds(ctx, &apiv1.ListKindsRequest{})
	if err != nil && apierr.Code(err) != codes.Unimplemented {
		return err
	}
	s.Discovered = true
	unknown := slices.DeleteFunc(listed.GetKinds(), func(d *apiv1.KindDescription) bool {
		_, known := s.Kinds.ByGVK(gvk(d))
		return known
	})
	// The version that is stored comes first, since others refer to it.
	slices.SortStableFunc(unknown, func(a, b *apiv1.KindDescription) int { return first(a.GetStored(), b.GetStored()) })
	schemas := make([]*apiv1.GetSchemaResponse, len(unknown))
	errs := make([]error, len(unknown))
	var calls errgroup.Group
	calls.SetLimit(schemaCalls)
	for i, d := range unknown {
		calls.Go(func() error {
			schemas[i], errs[i] = server.GetSchema(ctx, &apiv1.GetSchemaRequest{Group: d.GetGroup(), Version: d.GetVersion(), Kind: d.GetKind()})
			return nil
		})
	}
	_ = calls.Wait()
	for i, d := range unknown {
		if errs[i] == nil {
			errs[i] = register(s.Kinds, d, schemas[i])
		}
		if errs[i] != nil {
			errs[i] = fmt.Errorf("%s: %w", gvk(d), errs[i])
		}
	}
	return errors.Join(errs...)
}

// schemaCalls is the number of schemas that are read at the same time.
const schemaCalls = 8

func gvk(d *apiv1.KindDescription) scheme.GVK {
	return scheme.GVK{Group: d.GetGroup(), Version: d.GetVersion(), Kind: d.GetKind()}
}

// first orders true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// register adds a kind that the program was not compiled with to a scheme. Tables of it have the
// columns that show one field. The server checks its objects.
func register(kinds *scheme.Scheme, d *apiv1.KindDescription, schema *apiv1.GetSchemaResponse) error {
	var stored *scheme.Kind
	if !d.GetStored() {
		// A version of another group's kind has none.
		if k, ok := kinds.ByGroupKind(d.GetGroup(), d.GetKind()); ok {
			stored = k.Stored()
		}
	}
	k, err := scheme.FromDescription(d, schema, stored)
	if err != nil {
		return err
	}
	for _, c := range d.GetColumns() {
		switch path, err := jsonpath.ParsePath(c.GetJsonPath()); {
		case c.GetName() == column.AgeColumn.Name:
			k.Columns = append(k.Columns, column.AgeColumn)
		case c.GetJsonPath() != "" && err == nil:
			k.Columns = append(k.Columns, scheme.Column{
				Name: c.GetName(), Wide: c.GetWide(), Path: c.GetJsonPath(),
				Value: func(o scheme.Object, _ time.Time) string { return cell(path, o) },
			})
		}
	}
	return kinds.Register(k)
}

// cell is the text of the first value that a path leads to.
func cell(path jsonpath.Path, o scheme.Object) string {
	value, err := codec.ValueWhole(o)
	if err != nil {
		return "<unknown>"
	}
	found, err := path.Find(value)
	if err != nil || len(found) == 0 || found[0] == nil {
		return "<none>"
	}
	return jsonpath.Text(found[0])
}
