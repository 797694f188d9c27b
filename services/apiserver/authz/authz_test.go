package authz

import (
	"context"
	"errors"
	"testing"
)

// uses is the pod index of a cluster where node-1 runs a pod that refers to configmap default/web.
type uses struct{}

func (uses) NodeUses(_ context.Context, node, resource, namespace, name string) (bool, error) {
	return node == "node-1" && resource == "configmaps" && (namespace == "default" || namespace == "") && name == "web", nil
}

func TestAuthorize(t *testing.T) {
	admin := Caller{"alice", []string{GroupAdmins}}
	node := Caller{"system:node:node-1", []string{GroupNodes}}
	scheduler := Caller{"xebec:scheduler", []string{GroupServices}}
	workloads := Caller{"xebec:workloads", []string{GroupServices}}
	account := func(name string) Caller { return Caller{AccountUser("a", name), []string{GroupAccounts}} }
	tests := []struct {
		name    string
		r       Request
		allowed bool
	}{
		{"admin deletes a namespace", Request{Caller: admin, Verb: Delete, Resource: "namespaces", Name: "a"}, true},
		{"nobody reads", Request{Caller: Caller{User: "bob"}, Verb: Get, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"a service's name without its group", Request{Caller: Caller{User: "xebec:scheduler"}, Verb: List, Resource: "pods"}, false},
		{"a node's name without its group", Request{Caller: Caller{User: "system:node:node-1"}, Verb: Get, Resource: "nodes", Name: "node-1"}, false},
		{"a node's group without a name", Request{Caller: Caller{"system:node:", []string{GroupNodes}}, Verb: Get, Resource: "nodes", Name: "node-1"}, false},

		{"scheduler binds", Request{Caller: scheduler, Verb: Bind, Resource: "pods", Namespace: "a", Name: "p"}, true},
		{"scheduler deletes no pods", Request{Caller: scheduler, Verb: Delete, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"scheduler reads no secrets", Request{Caller: scheduler, Verb: Get, Resource: "secrets", Namespace: "a", Name: "s"}, false},
		{"scheduler holds its election", Request{Caller: scheduler, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-system", Name: "scheduler"}, true},
		{"scheduler sees who leads", Request{Caller: scheduler, Verb: List, Resource: "leases.coordination.k8s.io", Namespace: "kube-system"}, true},
		{"scheduler sees no heartbeats", Request{Caller: scheduler, Verb: List, Resource: "leases.coordination.k8s.io", Namespace: "kube-node-lease"}, false},
		{"scheduler holds no other election", Request{Caller: scheduler, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-system", Name: "workloads"}, false},
		{"scheduler records events", Request{Caller: scheduler, Verb: Create, Resource: "events", Namespace: "a", Name: "e"}, true},
		{"workloads binds nothing", Request{Caller: workloads, Verb: Bind, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"workloads makes pods", Request{Caller: workloads, Verb: Create, Resource: "pods", Namespace: "a"}, true},
		{"an unknown service", Request{Caller: Caller{"xebec:intruder", []string{GroupServices}}, Verb: List, Resource: "pods"}, false},

		{"node lists its pods", Request{Caller: node, Verb: List, Resource: "pods", NodeName: "node-1"}, true},
		{"node lists all pods", Request{Caller: node, Verb: List, Resource: "pods"}, false},
		{"node watches all pods", Request{Caller: node, Verb: Watch, Resource: "pods"}, false},
		{"node watches all pods in outline", Request{Caller: node, Verb: Outline, Resource: "pods"}, true},
		{"a service watches no outlines", Request{Caller: scheduler, Verb: Outline, Resource: "pods"}, false},
		{"node reads policies", Request{Caller: node, Verb: Watch, Resource: "networkpolicies.networking.k8s.io"}, true},
		{"node writes no policies", Request{Caller: node, Verb: Delete, Resource: "networkpolicies.networking.k8s.io", Namespace: "a", Name: "p"}, false},
		{"node lists another's pods", Request{Caller: node, Verb: Watch, Resource: "pods", NodeName: "node-2"}, false},
		{"node writes its pod's status", Request{Caller: node, Verb: UpdateStatus, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-1"}, true},
		{"node writes another's pod's status", Request{Caller: node, Verb: UpdateStatus, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-2"}, false},
		{"node changes its pod's spec", Request{Caller: node, Verb: Update, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-1"}, false},
		{"node creates a pod", Request{Caller: node, Verb: Create, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"node creates a pod of its own", Request{Caller: node, Verb: Create, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-1"}, true},
		{"node creates another's pod", Request{Caller: node, Verb: Create, Resource: "pods", Namespace: "a", Name: "p", NodeName: "node-2"}, false},
		{"node writes itself", Request{Caller: node, Verb: UpdateStatus, Resource: "nodes", Name: "node-1"}, true},
		{"node writes another node", Request{Caller: node, Verb: UpdateStatus, Resource: "nodes", Name: "node-2"}, false},
		{"node deletes itself", Request{Caller: node, Verb: Delete, Resource: "nodes", Name: "node-1"}, false},
		{"node keeps its lease", Request{Caller: node, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-node-lease", Name: "node-1"}, true},
		{"node takes another's lease", Request{Caller: node, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-node-lease", Name: "node-2"}, false},
		{"node takes an election", Request{Caller: node, Verb: Create, Resource: "leases.coordination.k8s.io", Namespace: "kube-system", Name: "node-1"}, false},
		{"node reads a configmap its pod uses", Request{Caller: node, Verb: Get, Resource: "configmaps", Namespace: "default", Name: "web"}, true},
		{"node reads another configmap", Request{Caller: node, Verb: Get, Resource: "configmaps", Namespace: "default", Name: "other"}, false},
		{"node watches a configmap its pod uses", Request{Caller: node, Verb: Watch, Resource: "configmaps", Namespace: "default", Name: "web"}, true},
		{"node lists what is called so in every namespace", Request{Caller: node, Verb: List, Resource: "configmaps", Name: "web"}, false},
		{"node lists configmaps", Request{Caller: node, Verb: List, Resource: "configmaps", Namespace: "default"}, false},
		{"node watches services", Request{Caller: node, Verb: Watch, Resource: "services"}, true},
		{"node writes services", Request{Caller: node, Verb: Update, Resource: "services", Namespace: "a", Name: "s"}, false},
		{"an account", Request{Caller: account("web"), Verb: Get, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"a reader reads", Request{Caller: account("reader"), Verb: Watch, Resource: "pods"}, true},
		{"a reader reads no secrets", Request{Caller: account("reader"), Verb: Get, Resource: "secrets", Namespace: "a", Name: "s"}, false},
		{"a reader writes", Request{Caller: account("reader"), Verb: Delete, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"a listed account", Request{Caller: account("boss"), Verb: Delete, Resource: "secrets", Namespace: "a", Name: "s"}, true},
		{"its name without the group", Request{Caller: Caller{User: AccountUser("a", "boss")}, Verb: Get, Resource: "pods", Namespace: "a", Name: "p"}, false},
		{"node reads deployments", Request{Caller: node, Verb: List, Resource: "deployments.apps"}, false},
	}
	a := &Authorizer{Pods: uses{}, Readers: map[string]bool{AccountUser("a", "reader"): true}, Admins: map[string]bool{AccountUser("a", "boss"): true}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := a.Authorize(t.Context(), tt.r)
			var denied *DeniedError
			switch {
			case tt.allowed && err != nil:
				t.Errorf("refused: %v", err)
			case !tt.allowed && !errors.As(err, &denied):
				t.Errorf("got %v, want a DeniedError", err)
			case denied != nil && denied.Reason == "":
				t.Error("no reason given")
			}
		})
	}
}
