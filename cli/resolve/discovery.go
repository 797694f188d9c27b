package resolve

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/cli/jsonpath"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// discover adds to the scheme of the session the stored kinds that the cluster serves and this
// program was not compiled with. A cluster without DiscoveryService has no such kinds. The cluster
// is asked once in a session.
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
	for _, d := range listed.GetKinds() {
		gvk := scheme.GVK{Group: d.GetGroup(), Version: d.GetVersion(), Kind: d.GetKind()}
		if _, known := s.Kinds.ByGVK(gvk); known || !d.GetStored() {
			continue
		}
		response, err := server.GetSchema(ctx, &apiv1.GetSchemaRequest{Group: d.GetGroup(), Version: d.GetVersion(), Kind: d.GetKind()})
		if err != nil {
			return fmt.Errorf("schema of %s: %w", gvk, err)
		}
		k, err := discovered(d, response)
		if err != nil {
			return err
		}
		if err := s.Kinds.Register(k); err != nil {
			return err
		}
	}
	return nil
}

// discovered describes a kind that the program was not compiled with. Tables of it have the columns
// that show one field. The server checks its objects.
func discovered(d *apiv1.KindDescription, schema *apiv1.GetSchemaResponse) (*scheme.Kind, error) {
	k, err := scheme.FromDescription(d, schema)
	if err != nil {
		return nil, err
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
	return k, nil
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
