package authz

import (
	"context"
	"fmt"
	"slices"
)

// The namespaces of elections and of node heartbeats.
const (
	electionNamespace  = "kube-system"
	heartbeatNamespace = "kube-node-lease"
)

// rule allows verbs on resources; "*" stands for every resource. A namespace limits it to that one.
type rule struct {
	resources []string
	verbs     []Verb
	namespace string
}

var (
	read = []Verb{Get, List, Watch}
	// common is what every service that stands for election may do besides its own rules: record events, and see who leads the
	// other services, which tells a leader whether its host leads more than its share.
	common = []rule{
		{[]string{"events"}, []Verb{Get, Create, Patch}, ""},
		{[]string{"leases.coordination.k8s.io"}, []Verb{List}, electionNamespace},
	}
	// election is what such a service may do with the Lease of its own election.
	election = []Verb{Watch, Create, Delete}
	// unelected are the services of which all instances serve.
	unelected = []string{"gateway", "auth"}
)

// services is what the code of each control-plane service does, and no more: TestRightsAreUsed holds it against that.
var services = map[string][]rule{
	"gateway": {
		{[]string{"pods", "nodes"}, []Verb{Get}, ""},
		{[]string{"gatewayaccesses.gateway.xebec.io"}, []Verb{Watch}, ""},
		{[]string{"leases.coordination.k8s.io"}, []Verb{List}, electionNamespace},
	},
	"auth": {
		{[]string{"serviceaccounts", "pods"}, []Verb{Get, Watch}, ""},
	},
	"scheduler": {
		{[]string{"pods"}, []Verb{Get, List, Watch, Bind, UpdateStatus}, ""},
		{[]string{"nodes"}, []Verb{List, Watch}, ""},
	},
	"workloads": {
		{[]string{"deployments.apps"}, []Verb{Get, Watch, UpdateStatus, Patch}, ""},
		{[]string{"replicasets.apps"}, []Verb{Get, Watch, Create, Update, UpdateStatus, Delete}, ""},
		{[]string{"pods"}, []Verb{List, Watch, Create, Patch, Delete}, ""},
	},
	"nodes": {
		{[]string{"nodes"}, []Verb{Get, Watch, Update, UpdateStatus}, ""},
		{[]string{"pods"}, []Verb{Get, List, Watch, UpdateStatus, Delete}, ""},
		{[]string{"leases.coordination.k8s.io"}, []Verb{Get, Watch}, heartbeatNamespace},
	},
	"endpoints": {
		{[]string{"services", "pods", "nodes"}, []Verb{Watch}, ""},
		{[]string{"endpointslices.discovery.k8s.io"}, []Verb{Watch, Create, Update, Delete}, ""},
	},
	"cloud": {
		{[]string{"services"}, []Verb{Get, Watch, UpdateStatus}, ""},
		{[]string{"nodes"}, []Verb{Watch}, ""},
		{[]string{"ipaddresses.networking.k8s.io"}, []Verb{Get, Watch, Create, Delete}, ""},
	},
	"collector": {
		{[]string{"*"}, []Verb{Get, List, Watch, Update, Delete}, ""},
		{[]string{"namespaces"}, []Verb{UpdateStatus}, ""},
	},
}

func authorizeService(service string, r Request) error {
	rules, known := services[service]
	if !known {
		return &DeniedError{r, fmt.Sprintf("no service is called %q", service)}
	}
	if !slices.Contains(unelected, service) {
		if r.Resource == "leases.coordination.k8s.io" && r.Namespace == electionNamespace && r.Name == service && slices.Contains(election, r.Verb) {
			return nil
		}
		rules = slices.Concat(common, rules)
	}
	for _, rule := range rules {
		if slices.Contains(rule.verbs, r.Verb) && (slices.Contains(rule.resources, r.Resource) || rule.resources[0] == "*") &&
			(rule.namespace == "" || rule.namespace == r.Namespace) {
			return nil
		}
	}
	return &DeniedError{r, "the service's job does not need it"}
}

// authorizeAccount gives a service account what the configuration says: there are no roles to grant it by.
func (a *Authorizer) authorizeAccount(r Request) error {
	switch {
	case a.Admins[r.Caller.User]:
		return nil
	case a.Readers[r.Caller.User] && slices.Contains(read, r.Verb) && r.Resource != "secrets":
		return nil
	case a.Readers[r.Caller.User]:
		return &DeniedError{r, "it only reads, and no secrets: the apiserver's configuration has it among serviceAccounts.readers"}
	}
	return &DeniedError{r, "a service account has no rights unless the apiserver's configuration names it (serviceAccounts.readers or admins)"}
}

// authorizeNode is the node's share: what it runs, and its own node, lease and pods.
func (a *Authorizer) authorizeNode(ctx context.Context, node string, r Request) error {
	reads := slices.Contains(read, r.Verb)
	switch r.Resource {
	case "nodes":
		// Every node reads all: routes between nodes need their addresses.
		if reads || r.Name == node && r.Verb != Delete {
			return nil
		}
		return &DeniedError{r, "a node writes only its own node object"}
	case "pods":
		switch {
		case r.Verb == Outline:
			// Network policies tell pods elsewhere by their labels and addresses.
			return nil
		case r.NodeName == node && (reads || r.Verb == UpdateStatus || r.Verb == Delete || r.Verb == Create):
			// What it creates is looked at again when it is admitted: a node only shows what it runs by itself.
			return nil
		case r.NodeName == node:
			return &DeniedError{r, "of its pods a node writes only the status"}
		case r.Verb == List || r.Verb == Watch:
			return &DeniedError{r, fmt.Sprintf("a node reads only its own pods: use the field selector spec.nodeName=%s", node)}
		}
		return &DeniedError{r, "the pod is not bound to this node"}
	case "leases.coordination.k8s.io":
		if r.Namespace == heartbeatNamespace && r.Name == node && r.Verb != List && r.Verb != Watch {
			return nil
		}
		return &DeniedError{r, "a node has only its own lease, in namespace " + heartbeatNamespace}
	case "services", "endpointslices.discovery.k8s.io", "namespaces", "networkpolicies.networking.k8s.io":
		if reads {
			return nil
		}
		return &DeniedError{r, "a node only reads these"}
	case "configmaps", "secrets", "serviceaccounts":
		if !reads {
			return &DeniedError{r, "a node only reads these"}
		}
		if r.Name == "" || r.Namespace == "" {
			return &DeniedError{r, "a node reads these one by one: name the namespace, and use the field selector metadata.name"}
		}
		if a.Pods != nil {
			used, err := a.Pods.NodeUses(ctx, node, r.Resource, r.Namespace, r.Name)
			if err != nil {
				return fmt.Errorf("what pods on node %s use: %w", node, err)
			}
			if used {
				return nil
			}
		}
		return &DeniedError{r, "no pod bound to this node refers to it"}
	case "events":
		if r.Verb == Get || r.Verb == Create || r.Verb == Update || r.Verb == Patch {
			return nil
		}
		return &DeniedError{r, "a node only records events"}
	}
	return &DeniedError{r, "a node does not need it"}
}
