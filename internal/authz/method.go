package authz

import (
	"cmp"
	"context"
	"strings"

	"github.com/xebec-project/xebec/internal/method"
)

// Builtin returns the authorizers of a server that authorizes no objects: administrators, services,
// nodes, and what everyone may do.
func Builtin() Union { return Union{Administrators{}, Services{}, Nodes{}, Authenticated{}} }

// resourceMethods precedes the full names of the methods that read and write objects.
const resourceMethods = "/xebec.api.v1.ResourceService/"

// NamesObject reports whether the requests of a method name the object, or the kind, that they are
// about. Such a call is authorized, with what it names, by the server that handles it.
func NamesObject(fullMethod string) bool {
	return strings.HasPrefix(fullMethod, resourceMethods)
}

// ForMethod returns what a call of a method asks for, as far as the method tells: its resource or
// path, without namespace and name. Only administrators have a right to a method without rules.
func ForMethod(caller Caller, fullMethod string) Attributes {
	rules := method.Rules(fullMethod)
	a := Attributes{Caller: caller, Verb: cmp.Or(rules.GetVerb(), Post.Verb())}
	a.Group, a.Resource, a.Subresource = ParseResource(rules.GetResource())
	if a.Resource == "" {
		a.Path = fullMethod
	}
	return a
}

// CheckMethod is Check for a call of a method.
func CheckMethod(ctx context.Context, authorizer Authorizer, caller Caller, fullMethod string) error {
	return Check(ctx, authorizer, ForMethod(caller, fullMethod))
}
