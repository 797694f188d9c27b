package apiserver

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/scheme"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	"github.com/xebec-project/xebec/services/apiserver/pipeline"
)

// verbs are those that CheckAccess accepts.
var verbs = []authz.Action{
	authz.Get, authz.List, authz.Watch, authz.Create, authz.Update, authz.Patch, authz.Delete, authz.DeleteCollection,
}

// aliases are further names of actions on subresources.
var aliases = map[string]authz.Action{
	"update status": authz.UpdateStatus, "update-status": authz.UpdateStatus, "bind": authz.Bind,
}

// accessService answers whether a caller may do something. It asks the authorizer that authorizes
// the calls.
type accessService struct {
	authv1.UnimplementedAccessServiceServer
	kinds      *scheme.Scheme
	authorizer authz.Authorizer
}

// CheckAccess asks the authorizer, on the caller's own behalf or another's.
func (s *accessService) CheckAccess(ctx context.Context, req *authv1.CheckAccessRequest) (*authv1.CheckAccessResponse, error) {
	k, ok := s.kinds.ByName(req.GetKind())
	if !ok {
		return nil, apierr.BadField("kind", "there is no kind %q", req.GetKind())
	}
	action := authz.Action(strings.ToLower(req.GetVerb()))
	if alias, ok := aliases[string(action)]; ok && req.GetSubresource() == "" {
		action = alias
	} else if !slices.Contains(verbs, action) {
		return nil, apierr.BadField("verb",
			"unknown verb %q: want get, list, watch, create, update, update-status, patch, delete, deletecollection or bind", req.GetVerb())
	}
	caller := callerOf(ctx)
	if req.GetUser() != "" {
		review := authz.Attributes{Caller: caller, Verb: authz.Create.Verb(), Group: "authorization.k8s.io", Resource: "subjectaccessreviews"}
		if err := authz.Check(ctx, s.authorizer, review); err != nil {
			return nil, rpc.Refusal(err)
		}
		caller = authz.Caller{User: req.GetUser(), Groups: req.GetGroups()}
	}
	namespace := ""
	if k.Namespaced {
		namespace = req.GetNamespace()
	}
	ask := pipeline.Attributes(k, action, namespace, req.GetName())
	ask.Caller, ask.NodeName = caller, req.GetNodeName()
	if req.GetSubresource() != "" {
		ask.Subresource = req.GetSubresource()
	}
	err := authz.Check(ctx, s.authorizer, ask)
	if forbidden, ok := errors.AsType[*authz.ForbiddenError](err); ok {
		return &authv1.CheckAccessResponse{Reason: forbidden.Reason}, nil
	}
	if err != nil {
		return nil, apierr.From(err)
	}
	return &authv1.CheckAccessResponse{Allowed: true}, nil
}
