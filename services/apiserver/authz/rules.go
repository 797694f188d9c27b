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

// rule allows verbs on resources; "*" stands for every resource.
type rule struct {
	resources []string
	verbs     []Verb
}

var (
	read  = []Verb{Get, List, Watch}
	write = []Verb{Create, Update, UpdateStatus, Patch, Delete}
	// common is what every service may do besides its own rules; elections are checked apart.
	common = []rule{{[]string{"events"}, []Verb{Get, Create, Update, Patch}}}
)

// services is what each control-plane service needs, and no more.
var services = map[string][]rule{
	"gateway": {
		{[]string{"pods", "nodes", "leases.coordination.k8s.io", "gatewayaccesses.gateway.xebec.io"}, read},
	},
	"auth": {
		{[]string{"serviceaccounts", "secrets", "pods", "nodes"}, read},
	},
	"scheduler": {
		{[]string{"pods", "nodes", "namespaces", "services", "replicasets.apps"}, read},
		{[]string{"pods"}, []Verb{Bind, UpdateStatus}},
	},
	"workloads": {
		{[]string{"deployments.apps", "replicasets.apps", "pods", "nodes", "namespaces"}, read},
		{[]string{"replicasets.apps", "pods"}, write},
		{[]string{"deployments.apps"}, []Verb{Update, UpdateStatus, Patch}},
	},
	"nodes": {
		{[]string{"nodes", "pods", "leases.coordination.k8s.io"}, read},
		{[]string{"nodes"}, []Verb{Update, UpdateStatus, Patch}},
		{[]string{"pods"}, []Verb{UpdateStatus, Patch, Delete}},
	},
	"endpoints": {
		{[]string{"services", "pods", "nodes", "namespaces", "endpointslices.discovery.k8s.io"}, read},
		{[]string{"endpointslices.discovery.k8s.io"}, write},
		{[]string{"services"}, []Verb{Update, UpdateStatus, Patch}},
	},
	"cloud": {
		{[]string{"services", "nodes", "ipaddresses.networking.k8s.io"}, read},
		{[]string{"services"}, []Verb{UpdateStatus}},
		{[]string{"ipaddresses.networking.k8s.io"}, []Verb{Create, Delete}},
	},
	"collector": {
		{[]string{"*"}, append(slices.Clone(read), Update, UpdateStatus, Patch, Delete)},
	},
}

func authorizeService(service string, r Request) error {
	rules, known := services[service]
	if !known {
		return &DeniedError{r, fmt.Sprintf("no service is called %q", service)}
	}
	// Who leads the other services tells a leader whether its host leads more than its share.
	if r.Resource == "leases.coordination.k8s.io" && r.Namespace == electionNamespace && (r.Name == service || r.Verb == List) {
		return nil
	}
	for _, rule := range append(slices.Clone(common), rules...) {
		if slices.Contains(rule.verbs, r.Verb) && (slices.Contains(rule.resources, r.Resource) || rule.resources[0] == "*") {
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
