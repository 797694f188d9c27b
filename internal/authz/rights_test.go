package authz

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/method"
	_ "github.com/xebec-project/xebec/proto/xebec/api/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/control/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/node/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

var update = flag.Bool("update", false, "write testdata: review every added line, each is an additional right")

// identity is a caller of the tables in testdata.
type identity struct {
	name   string
	caller Caller
}

func identities() []identity {
	all := []identity{{"administrator", Caller{"alice", []string{GroupAdmins}}}}
	for _, s := range []string{"gateway", "auth", "scheduler", "workloads", "nodes", "endpoints", "cloud", "collector", "apiserver", "unknown"} {
		all = append(all, identity{"service-" + s, Caller{"xebec:" + s, []string{GroupServices}}})
	}
	return append(all,
		identity{"node-1", Caller{"system:node:node-1", []string{GroupNodes}}},
		identity{"account-reader", Caller{AccountUser("a", "reader"), []string{GroupAccounts}}},
		identity{"account-admin", Caller{AccountUser("a", "boss"), []string{GroupAccounts}}},
		identity{"account-other", Caller{AccountUser("a", "web"), []string{GroupAccounts}}},
		identity{"person", Caller{"bob", []string{"devs"}}},
		identity{"service-without-group", Caller{"xebec:scheduler", nil}},
		identity{"node-without-group", Caller{"system:node:node-1", nil}},
		identity{"account-without-group", Caller{AccountUser("a", "boss"), nil}},
		identity{"unauthenticated", Caller{}})
}

// compare holds lines against a file of testdata. The file is the whole of the rights: a line that
// is missing is a right that was lost, another one is a right that was gained.
func compare(t *testing.T, file string, lines []string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range lines {
		if !slices.Contains(want, line) {
			t.Errorf("gained: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(lines, line) {
			t.Errorf("lost: %s", line)
		}
	}
}

// actions are all on objects, and on the subresources that calls to nodes and services are about.
var actions = []Action{
	Get, List, Watch, Create, Update, UpdateStatus, Patch, Delete, DeleteCollection, Bind, WatchSummary,
	"create/eviction", "get/log", "create/exec", "create/attach", "create/portforward", "create/token", "update/scale", "update/resize", "update/ephemeralcontainers",
}

// scope is which objects of a kind a request is about.
type scope struct {
	name                  string
	namespace, object, on string
}

func scopes(resource string, namespaced bool) []scope {
	namespace := ""
	all := []scope{{name: "all"}}
	if namespaced {
		namespace = "default"
		all = append(all, scope{name: "namespace", namespace: namespace})
	}
	all = append(all, scope{name: "one", namespace: namespace, object: "x"})
	switch resource {
	case "pods":
		for _, node := range []string{"node-1", "node-2"} {
			all = append(all, scope{"one on " + node, namespace, "x", node}, scope{"all on " + node, "", "", node})
		}
	case "nodes":
		all = append(all, scope{"node-1", "", "node-1", ""}, scope{"node-2", "", "node-2", ""})
	case "leases.coordination.k8s.io":
		for _, namespace := range []string{electionNamespace, heartbeatNamespace} {
			all = append(all, scope{"in " + namespace, namespace, "", ""})
			for _, name := range []string{"scheduler", "workloads", "gateway", "node-1", "node-2"} {
				all = append(all, scope{namespace + "/" + name, namespace, name, ""})
			}
		}
	case "configmaps", "secrets", "serviceaccounts":
		all = append(all, scope{"used by node-1", namespace, "web", ""})
	}
	return all
}

// TestRights compares what each identity may do to objects with testdata/rights.txt.
func TestRights(t *testing.T) {
	authorizer := objects()
	var lines []string
	for _, id := range identities() {
		for _, kind := range []string{
			"namespaced configmaps", "namespaced events", "cluster namespaces", "cluster nodes", "namespaced pods", "namespaced secrets",
			"namespaced services", "namespaced serviceaccounts", "namespaced deployments.apps", "namespaced replicasets.apps",
			"namespaced leases.coordination.k8s.io", "namespaced endpointslices.discovery.k8s.io", "cluster gatewayaccesses.gateway.xebec.io",
			"cluster ipaddresses.networking.k8s.io", "namespaced networkpolicies.networking.k8s.io", "cluster nodeports.networking.xebec.io",
		} {
			where, resource, _ := strings.Cut(kind, " ")
			for _, s := range scopes(resource, where == "namespaced") {
				var allowed []string
				for _, action := range actions {
					r := request{Caller: id.caller, Verb: action, Resource: resource, Namespace: s.namespace, Name: s.object, NodeName: s.on}
					if Check(t.Context(), authorizer, r.attributes()) == nil {
						allowed = append(allowed, string(action))
					}
				}
				if len(allowed) == len(actions) {
					allowed = []string{"everything"}
				}
				if len(allowed) > 0 {
					lines = append(lines, fmt.Sprintf("%s | %s | %s | %s", id.name, resource, s.name, strings.Join(allowed, " ")))
				}
			}
		}
	}
	compare(t, "testdata/rights.txt", lines)
}

// TestMethodRights compares who may call the methods of RPC services, apart from those that name a
// kind, with testdata/methods.txt.
func TestMethodRights(t *testing.T) {
	var lines []string
	method.Each(func(m protoreflect.MethodDescriptor) {
		name := method.FullName(m)
		var allowed []string
		for _, id := range identities() {
			if CheckMethod(t.Context(), Builtin(), id.caller, name) == nil {
				allowed = append(allowed, id.name)
			}
		}
		if NamesObject(name) && !slices.Equal(allowed, []string{"administrator"}) {
			t.Errorf("%s names a kind, and is allowed without one to %q", name, allowed)
		}
		if !NamesObject(name) {
			lines = append(lines, strings.TrimPrefix(name, "/xebec.")+" | "+strings.Join(allowed, " "))
		}
	})
	slices.Sort(lines)
	compare(t, "testdata/methods.txt", lines)
	for _, id := range identities() {
		if err := CheckMethod(t.Context(), Builtin(), id.caller, "/xebec.api.v1.ResourceService/None"); (err == nil) != (id.name == "administrator") {
			t.Errorf("%s calls a method without rules: %v", id.name, err)
		}
	}
}
