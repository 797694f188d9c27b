package apiserver

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	"github.com/xebec-project/xebec/services/apiserver/authz"
)

// verbs are those that people can ask about.
var verbs = []authz.Verb{authz.Get, authz.List, authz.Watch, authz.Create, authz.Update, authz.Patch, authz.Delete, authz.Bind}

// accessService answers "may I" by the authorizer that decides the calls themselves.
type accessService struct {
	authv1.UnimplementedAccessServiceServer
	authorizer *authz.Authorizer
}

// CheckAccess asks the authorizer, on the caller's own behalf or another's.
func (s *accessService) CheckAccess(ctx context.Context, req *authv1.CheckAccessRequest) (*authv1.CheckAccessResponse, error) {
	k, ok := kind.ByName(req.GetKind())
	if !ok {
		return nil, apierr.BadField("kind", "there is no kind %q", req.GetKind())
	}
	verb := authz.Verb(strings.ToLower(req.GetVerb()))
	if verb == "update status" || verb == "update-status" {
		verb = authz.UpdateStatus
	}
	if verb != authz.UpdateStatus && !slices.Contains(verbs, verb) {
		return nil, apierr.BadField("verb", "%q is none of get, list, watch, create, update, update-status, patch, delete, bind", req.GetVerb())
	}
	caller := callerOf(ctx)
	if req.GetUser() != "" {
		if _, service := caller.Service(); !service && !caller.In(authz.GroupAdmins) {
			return nil, apierr.Denied("user %q may only ask about itself: administrators and services may ask about others", caller.User)
		}
		caller = authz.Caller{User: req.GetUser(), Groups: req.GetGroups()}
	}
	request := authz.Request{Caller: caller, Verb: verb, Resource: k.Resource(), Name: req.GetName(), NodeName: req.GetNodeName()}
	if k.Namespaced {
		request.Namespace = req.GetNamespace()
	}
	err := s.authorizer.Authorize(ctx, request)
	if denied := (*authz.DeniedError)(nil); errors.As(err, &denied) {
		return &authv1.CheckAccessResponse{Reason: denied.Reason}, nil
	}
	if err != nil {
		return nil, apierr.From(err)
	}
	return &authv1.CheckAccessResponse{Allowed: true}, nil
}
