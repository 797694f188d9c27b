package write

import (
	"context"

	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Apply applies the object of a document with the fields that its text has, empty ones included.
func Apply(
	ctx context.Context, cl *client.Client, d manifest.Document, options ...client.ApplyOption,
) (scheme.Object, apiv1.ApplyResult, error) {
	text, err := d.JSON()
	if err != nil {
		return nil, 0, err
	}
	r := resolve.Of(d.Object)
	return client.ApplyJSON(ctx, cl, r.Kind, r.Namespace, r.Name, text, options...)
}

// OpApply is Apply as an operation of a transaction.
func OpApply(d manifest.Document, options ...client.ApplyOption) client.Operation {
	return func(cl *client.Client) (*apiv1.Operation, error) {
		text, err := d.JSON()
		if err != nil {
			return nil, err
		}
		r := resolve.Of(d.Object)
		return client.OpApplyJSON(r.Kind, r.Namespace, r.Name, text, options...)(cl)
	}
}
