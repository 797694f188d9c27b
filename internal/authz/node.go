package authz

import (
	"context"
	"fmt"
	"slices"
)

// PodIndex knows which objects the pods bound to a node use.
type PodIndex interface {
	// NodeUses reports whether a pod bound to the node refers to the object: a secrets, configmaps or
	// serviceaccounts resource of the pod's namespace.
	NodeUses(ctx context.Context, node, resource, namespace, name string) (bool, error)
}

// Nodes allows a node agent to read what the node runs and to write its own node, lease and pods'
// status, as Kubernetes' node authorizer does. The zero value refuses what depends on the pods
// bound to the node; set Pods where objects are authorized.
type Nodes struct {
	Pods PodIndex
}

// nodeCalls are what every node agent may do besides reading and writing objects. The auth service
// checks the account and the pod of a token, and the endpoints service the node that acknowledges.
var nodeCalls = []rule{
	{[]string{"/xebec.api.v1.LeaseService/*"}, []Action{Post}, ""},
	{[]string{"tokenreviews.authentication.k8s.io"}, []Action{Create}, ""},
	{[]string{"serviceaccounts"}, []Action{createToken}, ""},
	{[]string{"endpointslices.discovery.k8s.io"}, []Action{"update/acknowledgement"}, ""},
}

// createToken makes a token for a service account.
const createToken Action = "create/token"

// Authorize implements Authorizer.
func (n Nodes) Authorize(ctx context.Context, a Attributes) (Decision, string, error) {
	node, ok := a.Caller.Node()
	if !ok {
		return NoOpinion, "", nil
	}
	// Where the pods are known, a node makes tokens for their accounts only.
	ofAccount := n.Pods != nil && a.GroupResource() == "serviceaccounts"
	if !ofAccount && slices.ContainsFunc(nodeCalls, func(r rule) bool { return r.matches(a) }) {
		return Allow, "", nil
	}
	switch a.GroupResource() {
	case "configmaps", "secrets", "serviceaccounts":
		return n.used(ctx, node, a)
	}
	if reason := refusal(node, a); reason != "" {
		return NoOpinion, reason, nil
	}
	return Allow, "", nil
}

// used decides on an object that pods refer to.
func (n Nodes) used(ctx context.Context, node string, a Attributes) (Decision, string, error) {
	switch {
	case !slices.Contains(read, a.Action()) && !(a.Resource == "serviceaccounts" && a.Action() == createToken):
		return NoOpinion, onlyReads, nil
	case a.Name == "" || a.Namespace == "":
		return NoOpinion, "a node reads these one by one: name the namespace, and use the field selector metadata.name", nil
	}
	if n.Pods != nil {
		used, err := n.Pods.NodeUses(ctx, node, a.Resource, a.Namespace, a.Name)
		if err != nil {
			return NoOpinion, "", fmt.Errorf("find what the pods on node %s use: %w", node, err)
		}
		if used {
			return Allow, "", nil
		}
	}
	return NoOpinion, "no pod bound to this node refers to it", nil
}

const onlyReads = "a node only reads these"

// refusal returns why a node may not do something to objects of other kinds, "" when it may.
func refusal(node string, a Attributes) string {
	does := func(actions ...Action) bool { return slices.Contains(actions, a.Action()) }
	unless := func(allowed bool, reason string) string {
		if allowed {
			return ""
		}
		return reason
	}
	reads := does(read...)
	switch a.GroupResource() {
	case "nodes":
		// Every node reads all: routes between nodes need their addresses.
		return unless(reads || a.Name == node && does(Create, Update, UpdateStatus, Patch), "a node writes only its own node object")
	case "pods":
		switch {
		case does(WatchSummary):
			return "" // network policies select pods of other nodes by their labels and addresses
		case a.NodeName == node:
			// What it creates is checked again by admission: a node creates only the mirrors of its static
			// pods.
			return unless(reads || does(Create, UpdateStatus, Delete), "of its pods a node writes only the status")
		case does(List, Watch):
			return "a node reads only its own pods: use the field selector spec.nodeName=" + node
		}
		return "the pod is not bound to this node"
	case "leases.coordination.k8s.io":
		own := a.Namespace == heartbeatNamespace && a.Name == node
		return unless(own && does(Get, Create, Update, Patch, Delete), "a node has only its own lease, in namespace "+heartbeatNamespace)
	case "services", "endpointslices.discovery.k8s.io", "namespaces", "networkpolicies.networking.k8s.io", "runtimeclasses.node.k8s.io":
		return unless(reads, onlyReads)
	case "events":
		return unless(does(Get, Create, Update, Patch), "a node only records events")
	}
	return "a node does not need it"
}
