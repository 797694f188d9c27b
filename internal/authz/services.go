package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// The namespaces of elections and of node heartbeats, which are Lease objects.
const (
	electionNamespace  = "kube-system"
	heartbeatNamespace = "kube-node-lease"
)

// rule allows actions on resources and paths. A resource is plural[.group]; "*" stands for every
// kind, without the subresources that are not in the actions. A path begins with a slash, and a
// trailing "*" matches any rest, as in Kubernetes' nonResourceURLs. A namespace limits the rule to
// that one.
type rule struct {
	resources []string
	actions   []Action
	namespace string
}

func (r rule) matches(a Attributes) bool {
	if !slices.Contains(r.actions, a.Action()) || r.namespace != "" && r.namespace != a.Namespace {
		return false
	}
	return slices.ContainsFunc(r.resources, func(pattern string) bool {
		switch {
		case a.Resource == "":
			prefix, wildcard := strings.CutSuffix(pattern, "*")
			return strings.HasPrefix(pattern, "/") && (pattern == a.Path || wildcard && strings.HasPrefix(a.Path, prefix))
		case pattern == "*":
			return a.Resource != "*"
		}
		return pattern == a.GroupResource()
	})
}

var (
	read = []Action{Get, List, Watch}
	// every is what each control-plane service may do: call the RPCs that show and steer the control
	// plane, hold leases, and have tokens and rights of others reviewed.
	every = []rule{
		{[]string{"/xebec.api.v1.LeaseService/*"}, []Action{Post}, ""},
		{[]string{"tokenreviews.authentication.k8s.io", "subjectaccessreviews.authorization.k8s.io"}, []Action{Create}, ""},
		{[]string{"/xebec.cluster.v1.ClusterService/Status", "/xebec.cluster.v1.ClusterService/Access"}, []Action{Get}, ""},
		{[]string{"/xebec.control.v1.ControllerService/*"}, []Action{Get, Post}, ""},
		{[]string{"pods"}, []Action{"get/explain"}, ""},
	}
	// common is what each service that stands for election may do besides: record events, and see who
	// leads the other services, so that a leader knows whether its host leads more than its share.
	common = []rule{
		{[]string{"events"}, []Action{Get, Create, Patch}, ""},
		{[]string{"leases.coordination.k8s.io"}, []Action{List}, electionNamespace},
	}
	// election is what such a service may do with the Lease of its own election.
	election = []Action{Watch, Create, Delete}
	// unelected are the services of which all instances serve.
	unelected = []string{"gateway", "auth"}
)

// services is what the code of each control-plane service does, and no more: TestRightsAreUsed
// compares the two.
var services = map[string][]rule{
	"gateway": {
		{[]string{"pods", "nodes"}, []Action{Get}, ""},
		{[]string{"gatewayaccesses.gateway.xebec.io"}, []Action{Watch}, ""},
		{[]string{"leases.coordination.k8s.io"}, []Action{List}, electionNamespace},
	},
	"auth": {
		{[]string{"serviceaccounts", "pods"}, []Action{Get, Watch}, ""},
	},
	"scheduler": {
		{[]string{"pods"}, []Action{Get, List, Watch, Bind, UpdateStatus, Delete}, ""},
		{[]string{"nodes", "namespaces", "services", "poddisruptionbudgets.policy"}, []Action{List, Watch}, ""},
		{[]string{"podgroups.scheduling.k8s.io"}, []Action{Get, List, Watch, UpdateStatus}, ""},
	},
	"workloads": {
		{[]string{"deployments.apps"}, []Action{Get, Watch, UpdateStatus, Patch}, ""},
		{[]string{"replicasets.apps"}, []Action{Get, Watch, Create, Update, UpdateStatus, Delete}, ""},
		{[]string{"statefulsets.apps"}, []Action{Get, Watch, UpdateStatus}, ""},
		{[]string{"controllerrevisions.apps"}, []Action{Get, List, Watch, Create, Update, Patch, Delete}, ""},
		{[]string{"persistentvolumeclaims"}, []Action{Watch, Create, Patch}, ""},
		{[]string{"replicationcontrollers", "daemonsets.apps"}, []Action{Get, Watch, UpdateStatus}, ""},
		{[]string{"nodes"}, []Action{Watch}, ""},
		{[]string{"jobs.batch"}, []Action{Get, Watch, UpdateStatus, Create, Delete}, ""},
		{[]string{"cronjobs.batch"}, []Action{Watch, UpdateStatus}, ""},
		{[]string{"poddisruptionbudgets.policy"}, []Action{Watch, UpdateStatus}, ""},
		{[]string{"*"}, []Action{GetScale}, ""},
		{[]string{"pods"}, []Action{Get, List, Watch, Create, Patch, Delete, UpdateStatus}, ""},
	},
	"nodes": {
		{[]string{"nodes"}, []Action{Watch, Update, UpdateStatus, "get/reachability"}, ""},
		{[]string{"pods"}, []Action{Get, List, Watch, UpdateStatus, Delete}, ""},
		{[]string{"leases.coordination.k8s.io"}, []Action{Get, Watch}, heartbeatNamespace},
	},
	"endpoints": {
		{[]string{"services", "pods", "nodes"}, []Action{Watch}, ""},
		{[]string{"endpoints", "endpointslices.discovery.k8s.io"}, []Action{Watch, Create, Update, Delete}, ""},
	},
	"cloud": {
		{[]string{"services"}, []Action{Get, Watch, UpdateStatus}, ""},
		{[]string{"nodes"}, []Action{Watch}, ""},
		{[]string{"ipaddresses.networking.k8s.io"}, []Action{Get, Watch, Create, Delete}, ""},
	},
	"collector": {
		{[]string{"*"}, []Action{Get, List, Watch, Update, Delete, DeleteCollection}, ""},
		{[]string{"namespaces"}, []Action{UpdateStatus}, ""},
	},
}

// Services allows each control-plane service the rights in the table above.
type Services struct{}

// Authorize implements Authorizer.
func (Services) Authorize(_ context.Context, a Attributes) (Decision, string, error) {
	service, ok := a.Caller.Service()
	if !ok {
		return NoOpinion, "", nil
	}
	own, known := services[service]
	if !known {
		return NoOpinion, fmt.Sprintf("no service is called %q", service), nil
	}
	rules := slices.Concat(every, own)
	if !slices.Contains(unelected, service) {
		if a.GroupResource() == "leases.coordination.k8s.io" && a.Namespace == electionNamespace && a.Name == service &&
			slices.Contains(election, a.Action()) {
			return Allow, "", nil
		}
		rules = slices.Concat(common, rules)
	}
	if slices.ContainsFunc(rules, func(r rule) bool { return r.matches(a) }) {
		return Allow, "", nil
	}
	return NoOpinion, "the service's job does not need it", nil
}
