// Package authz decides who may do what, in Kubernetes' terms: a user with groups, a verb, a
// resource with its API group and subresource, a namespace and a name; or a verb on a path for
// calls that concern no kind. Several authorizers form a union: administrators, control-plane
// services, node agents, service accounts, and what every authenticated caller may do. The gateway,
// the apiserver, the other services and the node agents use the same ones.
//
// Rights that depend on the content of an object are checked where the object is: by the
// apiserver's admission.
package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Action is a verb and, after a slash, the subresource that it applies to: "get", "update/status",
// "create/binding".
type Action string

// The actions on objects, with Kubernetes' verbs and subresources. WatchSummary is the watch on the
// part of pods that network policies need: labels, addresses and the like.
const (
	Get              Action = "get"
	List             Action = "list"
	Watch            Action = "watch"
	Create           Action = "create"
	Update           Action = "update"
	Patch            Action = "patch"
	Delete           Action = "delete"
	DeleteCollection Action = "deletecollection"
	UpdateStatus     Action = "update/status"
	GetScale         Action = "get/scale"
	UpdateScale      Action = "update/scale"
	PatchScale       Action = "patch/scale"
	Bind             Action = "create/binding"
	Evict            Action = "create/eviction"
	WatchSummary     Action = "watch/summary"
	// Post is the verb on the paths of RPCs that write; Get is that of those that read.
	Post Action = "post"
)

// Verb returns the verb of the action.
func (a Action) Verb() string {
	verb, _, _ := strings.Cut(string(a), "/")
	return verb
}

// Subresource returns the subresource of the action, "" for an action on the resource itself.
func (a Action) Subresource() string {
	_, subresource, _ := strings.Cut(string(a), "/")
	return subresource
}

// Attributes are what a caller asks to do.
type Attributes struct {
	Caller Caller
	// Verb is Kubernetes' verb on a resource, or get or post on a path.
	Verb string
	// Group, Resource and Subresource are the API group, the plural of the kind and the subresource,
	// such as "apps", "deployments" and "status". Resource is empty for a call that concerns no kind.
	Group, Resource, Subresource string
	// Path is the full name of the RPC method where Resource is empty.
	Path string
	// Namespace and Name are empty where the request spans several.
	Namespace, Name string
	// NodeName is the node that the requested objects belong to: the stored pod's spec.nodeName, or
	// the value that the field selector of a List or Watch requires. Empty when unknown.
	NodeName string
}

// Action returns the verb and subresource as an Action.
func (a Attributes) Action() Action {
	if a.Subresource == "" {
		return Action(a.Verb)
	}
	return Action(a.Verb + "/" + a.Subresource)
}

// GroupResource returns the resource as "pods" or "deployments.apps".
func (a Attributes) GroupResource() string {
	if a.Group == "" {
		return a.Resource
	}
	return a.Resource + "." + a.Group
}

// ParseResource splits plural[.group][/subresource]: "tokenreviews.authentication.k8s.io" and
// "pods/exec" have the groups "authentication.k8s.io" and "".
func ParseResource(text string) (group, resource, subresource string) {
	resource, subresource, _ = strings.Cut(text, "/")
	resource, group, _ = strings.Cut(resource, ".")
	return group, resource, subresource
}

// Decision is what one authorizer says about a request.
type Decision int

// The decisions. NoOpinion leaves the request to the next authorizer; a request on which no
// authorizer has an opinion is refused.
const (
	NoOpinion Decision = iota
	Allow
	Deny
)

// Authorizer decides requests. It is safe for concurrent use.
type Authorizer interface {
	// Authorize returns a decision and, unless it is Allow, the reason in a clause such as "a node
	// only reads these". A reason without an opinion explains a refusal when no other authorizer
	// allows the request. An error means that the authorizer could not decide; the decision is
	// NoOpinion then.
	Authorize(ctx context.Context, a Attributes) (Decision, string, error)
}

// Union is an Authorizer that asks several in order. The first that allows or denies decides.
type Union []Authorizer

// Authorize implements Authorizer. Errors count only when no authorizer decides.
func (u Union) Authorize(ctx context.Context, a Attributes) (Decision, string, error) {
	var reasons []string
	var failures []error
	for _, authorizer := range u {
		decision, reason, err := authorizer.Authorize(ctx, a)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		if decision != NoOpinion {
			return decision, reason, nil
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
	}
	return NoOpinion, strings.Join(reasons, "; "), errors.Join(failures...)
}

// Check returns nil when an authorizer allows a request, a *ForbiddenError when it does not, and
// another error when it could not decide.
func Check(ctx context.Context, authorizer Authorizer, a Attributes) error {
	decision, reason, err := authorizer.Authorize(ctx, a)
	switch {
	case decision == Allow:
		return nil
	case err != nil && decision == NoOpinion:
		return fmt.Errorf("authorize user %q: %w", a.Caller.User, err)
	case reason == "":
		reason = "the user is in no group that has rights (administrators are in " + GroupAdmins + ")"
	}
	return &ForbiddenError{a, reason}
}

// ForbiddenError says why a request was refused.
type ForbiddenError struct {
	Attributes Attributes
	Reason     string
}

// Error returns Kubernetes' sentence with the reason.
func (e *ForbiddenError) Error() string {
	a := e.Attributes
	if a.Resource == "" {
		return fmt.Sprintf("forbidden: User %q cannot %s path %q: %s", a.Caller.User, a.Verb, a.Path, e.Reason)
	}
	object, resource, scope := a.GroupResource(), a.Resource, "at the cluster scope"
	if a.Name != "" {
		object += fmt.Sprintf(" %q", a.Name)
	}
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	if a.Namespace != "" {
		scope = fmt.Sprintf("in the namespace %q", a.Namespace)
	}
	return fmt.Sprintf("%s is forbidden: User %q cannot %s resource %q in API group %q %s: %s",
		object, a.Caller.User, a.Verb, resource, a.Group, scope, e.Reason)
}

// Administrators allows members of system:masters everything.
type Administrators struct{}

// Authorize implements Authorizer.
func (Administrators) Authorize(_ context.Context, a Attributes) (Decision, string, error) {
	if a.Caller.In(GroupAdmins) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}

// Authenticated allows every known caller to ask who it is and what it may do, and to read the
// public keys of tokens, the version and the kinds, as Kubernetes' roles system:basic-user,
// system:public-info-viewer and system:discovery do.
type Authenticated struct{}

// everyone is what Authenticated allows.
var everyone = []rule{
	{[]string{"selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectreviews.authentication.k8s.io"}, []Action{Create}, ""},
	{[]string{"/xebec.auth.v1.TokenService/ListKeys", "/xebec.cluster.v1.ClusterService/Version"}, []Action{Get}, ""},
	{[]string{"/xebec.api.v1.DiscoveryService/*"}, []Action{Get}, ""},
}

// Authorize implements Authorizer.
func (Authenticated) Authorize(_ context.Context, a Attributes) (Decision, string, error) {
	if a.Caller.User != "" && slices.ContainsFunc(everyone, func(r rule) bool { return r.matches(a) }) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}
