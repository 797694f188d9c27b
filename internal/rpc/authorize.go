package rpc

import (
	"context"
	"errors"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/edge"
)

// AuthorizeMethod allows a call when the builtin authorizers give the caller the right that the
// rules of the method state. It is what a server does that was given no Authorize. Calls of methods
// that name an object or a kind it allows to administrators only.
func AuthorizeMethod(ctx context.Context, id edge.Identity, fullMethod string) error {
	return Refusal(authz.CheckMethod(ctx, builtin, id.Caller(), fullMethod))
}

// AuthorizeUnlessKind is AuthorizeMethod for a server that authorizes calls of methods that name a
// kind in its handlers, or forwards them to a server that does: it lets every caller make those.
func AuthorizeUnlessKind(ctx context.Context, id edge.Identity, fullMethod string) error {
	if authz.NamesObject(fullMethod) {
		return nil
	}
	return AuthorizeMethod(ctx, id, fullMethod)
}

// builtin decides without state.
var builtin = authz.Builtin()

// Refusal returns an error of authz.Check as a status.
func Refusal(err error) error {
	if forbidden, ok := errors.AsType[*authz.ForbiddenError](err); ok {
		return apierr.Denied("%v", forbidden)
	}
	return apierr.From(err)
}
