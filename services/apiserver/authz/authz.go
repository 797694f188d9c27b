// Package authz decides who may do what to which objects. Administrators may do all; every service may do what its job
// needs, by the table in rules.go; a node may read what it runs and write its own node, lease and pods' status, as
// Kubernetes' node authorizer and NodeRestriction admission have it. Everybody else is refused, with the reason.
package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Groups and users with a meaning of their own.
const (
	GroupAdmins   = "system:masters"
	GroupServices = "xebec:services"
	GroupNodes    = "system:nodes"
	GroupAccounts = "system:serviceaccounts"
	servicePrefix = "xebec:"
	nodePrefix    = "system:node:"
)

// AccountUser is the user that a service account's token stands for.
func AccountUser(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// Verb is what a caller wants to do.
type Verb string

// The verbs, as Kubernetes names them; Bind assigns a pod to a node,
// and Outline is to watch what WatchRequest's outline leaves of objects.
const (
	Get          Verb = "get"
	List         Verb = "list"
	Watch        Verb = "watch"
	Create       Verb = "create"
	Update       Verb = "update"
	UpdateStatus Verb = "update status of"
	Patch        Verb = "patch"
	Delete       Verb = "delete"
	Bind         Verb = "bind"
	Outline      Verb = "watch the outline of"
)

// Caller is who asks.
type Caller struct {
	User   string
	Groups []string
}

// In reports whether the caller is in a group.
func (c Caller) In(group string) bool { return slices.Contains(c.Groups, group) }

// Node returns the node's name when the caller is a node agent.
func (c Caller) Node() (string, bool) {
	name, ok := strings.CutPrefix(c.User, nodePrefix)
	return name, ok && name != "" && c.In(GroupNodes)
}

// Service returns the service's name when the caller is a control-plane service.
func (c Caller) Service() (string, bool) {
	name, ok := strings.CutPrefix(c.User, servicePrefix)
	return name, ok && name != "" && c.In(GroupServices)
}

// Narrows reports whether the caller may have a right to a part of a kind, which a field selector chooses, without a right
// to all of it: a node to its own pods and to what they use, a service to its election.
func (c Caller) Narrows() bool {
	_, node := c.Node()
	_, service := c.Service()
	return node || service
}

// Request is what is asked.
type Request struct {
	Caller Caller
	Verb   Verb
	// Resource is the kind's qualified plural, such as pods or deployments.apps.
	Resource string
	// Namespace and Name are empty where the verb spans several.
	Namespace, Name string
	// NodeName is the node that the objects asked for belong to: a pod's spec.nodeName, or the value that the field
	// selector of a List or Watch demands of it; empty when unknown.
	NodeName string
}

// DeniedError says why a request was refused.
type DeniedError struct {
	Request Request
	Reason  string
}

// Error is a sentence with the caller, the verb, the object and the reason.
func (e *DeniedError) Error() string {
	r := e.Request
	what := r.Resource
	if r.Name != "" {
		what += fmt.Sprintf(" %q", r.Name)
	}
	where := ""
	if r.Namespace != "" {
		where = fmt.Sprintf(" in namespace %q", r.Namespace)
	}
	return fmt.Sprintf("user %q may not %s %s%s: %s", r.Caller.User, r.Verb, what, where, e.Reason)
}

// PodIndex tells what the pods bound to a node use.
type PodIndex interface {
	// NodeUses reports whether a pod bound to the node refers to the object: a secrets, configmaps or serviceaccounts
	// resource of the pod's namespace.
	NodeUses(ctx context.Context, node, resource, namespace, name string) (bool, error)
}

// Authorizer decides requests. The zero value refuses nodes what depends on their pods; set Pods.
type Authorizer struct {
	Pods PodIndex
	// Readers and Admins are the users of service accounts that may read everything but secrets, and do everything.
	Readers, Admins map[string]bool
}

// Authorize returns nil when the request is allowed, a *DeniedError when it is not, and another error when the decision
// could not be made.
func (a *Authorizer) Authorize(ctx context.Context, r Request) error {
	if r.Caller.In(GroupAdmins) {
		return nil
	}
	if service, ok := r.Caller.Service(); ok {
		return authorizeService(service, r)
	}
	if node, ok := r.Caller.Node(); ok {
		return a.authorizeNode(ctx, node, r)
	}
	if r.Caller.In(GroupAccounts) {
		return a.authorizeAccount(r)
	}
	return &DeniedError{r, "it is in no group that has rights (administrators are in " + GroupAdmins + ")"}
}
