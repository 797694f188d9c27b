package authz

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// uses is the pod index of a cluster where node-1 runs a pod that refers to a config map, a secret
// and an account default/web.
type uses struct{}

func (uses) NodeUses(_ context.Context, node, resource, namespace, name string) (bool, error) {
	known := slices.Contains([]string{"configmaps", "secrets", "serviceaccounts"}, resource)
	return known && node == "node-1" && (namespace == "default" || namespace == "") && name == "web", nil
}

// request is Attributes with an action and the resource as plural.group.
type request struct {
	Caller          Caller
	Verb            Action
	Resource        string
	Namespace, Name string
	NodeName        string
}

func (r request) attributes() Attributes {
	a := Attributes{
		Caller: r.Caller, Verb: r.Verb.Verb(), Subresource: r.Verb.Subresource(), Namespace: r.Namespace, Name: r.Name, NodeName: r.NodeName,
	}
	a.Group, a.Resource, _ = ParseResource(r.Resource)
	return a
}

// objects is the union of the apiserver, with accounts of the namespace a.
func objects() Authorizer {
	return Union{
		Administrators{}, Services{}, Nodes{Pods: uses{}},
		Accounts{Readers: map[string]bool{AccountUser("a", "reader"): true}, Admins: map[string]bool{AccountUser("a", "boss"): true}},
		Authenticated{},
	}
}

func TestAuthorize(t *testing.T) {
	admin := Caller{"alice", []string{GroupAdmins}}
	node := Caller{"system:node:node-1", []string{GroupNodes}}
	scheduler := Caller{"xebec:scheduler", []string{GroupServices}}
	workloads := Caller{"xebec:workloads", []string{GroupServices}}
	account := func(name string) Caller { return Caller{AccountUser("a", name), []string{GroupAccounts}} }
	tests := []struct {
		name    string
		r       request
		allowed bool
	}{
		{"admin deletes a namespace", request{Caller: admin, Verb: Delete, Resource: "namespaces", Name: "a"}, true},
		{"unknown user reads", request{Caller: Caller{User: "bob"}, Verb: Get, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"a service's name without its group", request{Caller: Caller{User: "xebec:scheduler"}, Verb: List, Resource: "pods"}, false},
		{"a node's name without its group", request{Caller: Caller{User: "system:node:node-1"}, Verb: Get, Resource: "nodes", Name: "node-1"}, false},
		{"a node's group without a name", request{Caller: Caller{"system:node:", []string{GroupNodes}}, Verb: Get, Resource: "nodes", Name: "node-1"}, false},

		{"scheduler binds", request{Caller: scheduler, Verb: Bind, Resource: "pods", Namespace: "a", Name: "p"}, true},
		{"scheduler preempts pods", request{Caller: scheduler, Verb: Delete, Resource: "pods", Namespace: "a", Name: "p"}, true},
		{"scheduler reads no secrets", request{Caller: scheduler, Verb: Get, Resource: "secrets", Namespace: "a", Name: "s"}, false},
		{"scheduler holds its election", request{Caller: scheduler, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-system", Name: "scheduler"}, true},
		{"scheduler sees who leads", request{Caller: scheduler, Verb: List, Resource: "leases.coordination.k8s.io", Namespace: "kube-system"}, true},
		{"scheduler sees no heartbeats", request{Caller: scheduler, Verb: List, Resource: "leases.coordination.k8s.io", Namespace: "kube-node-lease"}, false},
		{"scheduler holds no other election", request{Caller: scheduler, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-system", Name: "workloads"}, false},
		{"scheduler records events", request{Caller: scheduler, Verb: Create, Resource: "events", Namespace: "a", Name: "e"}, true},
		{"workloads binds nothing", request{Caller: workloads, Verb: Bind, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"workloads makes pods", request{Caller: workloads, Verb: Create, Resource: "pods", Namespace: "a"}, true},
		{"an unknown service", request{Caller: Caller{"xebec:intruder", []string{GroupServices}}, Verb: List, Resource: "pods"}, false},

		{"node lists its pods", request{Caller: node, Verb: List, Resource: "pods", NodeName: "node-1"}, true},
		{"node lists all pods", request{Caller: node, Verb: List, Resource: "pods"}, false},
		{"node watches all pods", request{Caller: node, Verb: Watch, Resource: "pods"}, false},
		{"node watches all pods in summary", request{Caller: node, Verb: WatchSummary, Resource: "pods"}, true},
		{"a service watches no summaries", request{Caller: scheduler, Verb: WatchSummary, Resource: "pods"}, false},
		{"node reads policies", request{Caller: node, Verb: Watch, Resource: "networkpolicies.networking.k8s.io"}, true},
		{"node writes no policies", request{Caller: node, Verb: Delete, Resource: "networkpolicies.networking.k8s.io", Namespace: "a", Name: "p"}, false},
		{"node lists another's pods", request{Caller: node, Verb: Watch, Resource: "pods", NodeName: "node-2"}, false},
		{"node writes its pod's status", request{Caller: node, Verb: UpdateStatus, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-1"}, true},
		{"node writes another's pod's status", request{Caller: node, Verb: UpdateStatus, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-2"}, false},
		{"node changes its pod's spec", request{Caller: node, Verb: Update, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-1"}, false},
		{"node creates a pod", request{Caller: node, Verb: Create, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"node creates a pod of its own", request{Caller: node, Verb: Create, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-1"}, true},
		{"node creates another's pod", request{Caller: node, Verb: Create, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-2"}, false},
		{"node writes itself", request{Caller: node, Verb: UpdateStatus, Resource: "nodes", Name: "node-1"}, true},
		{"node writes another node", request{Caller: node, Verb: UpdateStatus, Resource: "nodes", Name: "node-2"}, false},
		{"node deletes itself", request{Caller: node, Verb: Delete, Resource: "nodes", Name: "node-1"}, false},
		{"node keeps its lease", request{Caller: node, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-node-lease", Name: "node-1"}, true},
		{"node takes another's lease", request{Caller: node, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-node-lease", Name: "node-2"}, false},
		{"node takes an election", request{Caller: node, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-system", Name: "node-1"}, false},
		{"node reads a configmap its pod uses", request{Caller: node, Verb: Get, Resource: "configmaps", Namespace: "default", Name: "web"}, true},
		{"node reads another configmap", request{Caller: node, Verb: Get, Resource: "configmaps", Namespace: "default", Name: "other"}, false},
		{"node watches a configmap its pod uses", request{Caller: node, Verb: Watch, Resource: "configmaps", Namespace: "default", Name: "web"}, true},
		{"node lists what is called so in every namespace", request{Caller: node, Verb: List, Resource: "configmaps", Name: "web"}, false},
		{"node lists configmaps", request{Caller: node, Verb: List, Resource: "configmaps", Namespace: "default"}, false},
		{"node watches services", request{Caller: node, Verb: Watch, Resource: "services"}, true},
		{"node writes services", request{Caller: node, Verb: Update, Resource: "services", Namespace: "a", Name: "s"}, false},
		{"an account", request{Caller: account("web"), Verb: Get, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"a reader reads", request{Caller: account("reader"), Verb: Watch, Resource: "pods"}, true},
		{"a reader reads no secrets", request{Caller: account("reader"), Verb: Get, Resource: "secrets", Namespace: "a", Name: "s"}, false},
		{"a reader writes", request{Caller: account("reader"), Verb: Delete, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"a listed account", request{Caller: account("boss"), Verb: Delete, Resource: "secrets", Namespace: "a", Name: "s"}, true},
		{"its name without the group", request{Caller: Caller{User: AccountUser("a", "boss")}, Verb: Get, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"node reads the log of its pod", request{Caller: node, Verb: "get/log", Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-1"}, false},
		{"node binds its pod", request{Caller: node, Verb: Bind, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-1"}, false},
		{"node deletes its pods at once", request{Caller: node, Verb: DeleteCollection, Resource: "pods", Namespace: "a", NodeName: "node-1"}, false},
		{"node reads the token of an account", request{Caller: node, Verb: "get/token", Resource: "serviceaccounts", Namespace: "a", Name: "s"}, false},
		{"collector writes a subresource", request{Caller: Caller{"xebec:collector", []string{GroupServices}}, Verb: "update/scale", Resource: "deployments.apps", Namespace: "a", Name: "d"}, false},
		{"a reader reads logs", request{Caller: account("reader"), Verb: "get/log", Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"a listed account runs commands", request{Caller: account("boss"), Verb: "create/exec", Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"a listed account binds", request{Caller: account("boss"), Verb: Bind, Resource: "pods", Namespace: "a", Name: "p"}, true},
		{"admin runs commands", request{Caller: admin, Verb: "create/exec", Resource: "pods", Namespace: "a", Name: "p"}, true},
		{"node reads deployments", request{Caller: node, Verb: List, Resource: "deployments.apps"}, false},
	}
	a := objects()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(t.Context(), a, tt.r.attributes())
			var denied *ForbiddenError
			switch {
			case tt.allowed && err != nil:
				t.Errorf("refused: %v", err)
			case !tt.allowed && !errors.As(err, &denied):
				t.Errorf("got %v, want a ForbiddenError", err)
			case denied != nil && denied.Reason == "":
				t.Error("no reason given")
			}
		})
	}
}

// opinion is an authorizer that always says the same.
type opinion struct {
	decision Decision
	reason   string
	err      error
}

func (o opinion) Authorize(context.Context, Attributes) (Decision, string, error) {
	return o.decision, o.reason, o.err
}

func TestUnion(t *testing.T) {
	broken := errors.New("no answer")
	allow, deny, no := opinion{decision: Allow}, opinion{decision: Deny, reason: "denied"}, opinion{reason: "first"}
	for name, tt := range map[string]struct {
		union     Union
		forbidden string
		err       error
	}{
		"empty":                       {Union{}, "the user is in no group that has rights", nil},
		"the first decision counts":   {Union{no, allow, deny}, "", nil},
		"a denial ends the search":    {Union{no, deny, allow}, "denied", nil},
		"reasons are joined":          {Union{no, opinion{reason: "second"}}, "first; second", nil},
		"an error with an allowance":  {Union{opinion{err: broken}, allow}, "", nil},
		"an error with a denial":      {Union{opinion{err: broken}, deny}, "denied", nil},
		"an error without a decision": {Union{opinion{err: broken}, no}, "", broken},
		"a union in a union":          {Union{Union{no}, Union{opinion{reason: "second"}, allow}}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(t.Context(), tt.union, Attributes{Caller: Caller{User: "ann"}, Verb: "get", Resource: "pods"})
			forbidden, isForbidden := errors.AsType[*ForbiddenError](err)
			switch {
			case isForbidden && (tt.forbidden == "" || !strings.HasPrefix(forbidden.Reason, tt.forbidden)),
				!isForbidden && tt.forbidden != "", !isForbidden && !errors.Is(err, tt.err):
				t.Errorf("got %v, want a refusal for %q or the error %v", err, tt.forbidden, tt.err)
			}
		})
	}
}

func TestForbiddenError(t *testing.T) {
	for _, tt := range []struct {
		a    Attributes
		want string
	}{
		{Attributes{Verb: "get", Resource: "pods", Namespace: "shop", Name: "web"},
			`pods "web" is forbidden: User "ann" cannot get resource "pods" in API group "" in the namespace "shop": why`},
		{Attributes{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "shop", Name: "web"},
			`pods "web" is forbidden: User "ann" cannot create resource "pods/exec" in API group "" in the namespace "shop": why`},
		{Attributes{Verb: "list", Group: "apps", Resource: "deployments"},
			`deployments.apps is forbidden: User "ann" cannot list resource "deployments" in API group "apps" at the cluster scope: why`},
		{Attributes{Verb: "post", Path: "/xebec.etcd.v1.EtcdService/AddMember"},
			`forbidden: User "ann" cannot post path "/xebec.etcd.v1.EtcdService/AddMember": why`},
	} {
		tt.a.Caller.User = "ann"
		if got := (&ForbiddenError{tt.a, "why"}).Error(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestParseResource(t *testing.T) {
	for text, want := range map[string][3]string{
		"":                                   {},
		"*":                                  {"", "*", ""},
		"pods":                               {"", "pods", ""},
		"pods/exec":                          {"", "pods", "exec"},
		"tokenreviews.authentication.k8s.io": {"authentication.k8s.io", "tokenreviews", ""},
		"endpointslices.discovery.k8s.io/acknowledgement": {"discovery.k8s.io", "endpointslices", "acknowledgement"},
	} {
		group, resource, subresource := ParseResource(text)
		if got := [3]string{group, resource, subresource}; got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
