package authz

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/pki"
)

// calls are what a service's code asks of the API, as far as its source says so.
type calls struct {
	// made are the verbs by the message of the kind, where a call names it: client.Get[*corev1.Pod].
	made map[string][]Action
	// verbs are those of all calls; of some the source does not tell the kind.
	verbs map[Action]bool
	// generic are the verbs of calls in functions that are generic themselves.
	generic map[Action]bool
	// messages are the names of all types of proto packages that the code mentions.
	messages map[string]bool
}

// verbsOf are the verbs that the functions of internal/client need.
var verbsOf = map[string][]Action{
	"Get": {Get}, "GetKind": {Get}, "List": {List}, "ListKind": {List}, "InformerOptions": {Watch}, "Watch": {Watch},
	"Create": {Create}, "OpCreate": {Create}, "Update": {Update}, "UpdateStatus": {UpdateStatus}, "OpUpdateStatus": {UpdateStatus},
	"Patch": {Patch}, "PatchKind": {Patch}, "Delete": {Delete}, "DeleteKind": {Delete}, "DeleteCollectionKind": {DeleteCollection}, "DeleteCollection": {DeleteCollection}, "OpDelete": {Delete}, "OpBind": {Bind},
	"Apply": {Patch, Create},
}

// elsewhere are the directories of further code that makes calls with the rights of one service.
var elsewhere = map[string][]string{"gateway": {"internal/edge/listener"}}

// apiPackage matches the names of packages of messages, such as corev1 and schedulingv1alpha2.
var apiPackage = regexp.MustCompile(`v[0-9]+((alpha|beta)[0-9]+)?$`)

// readCalls reads the source of a service.
func readCalls(t *testing.T, service string) calls {
	t.Helper()
	c := calls{map[string][]Action{}, map[Action]bool{}, map[Action]bool{}, map[string]bool{}}
	read := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IndexExpr:
				for _, verb := range verbsOf[clientFunc(n.X)] {
					if name := messageName(n.Index); name != "" {
						c.made[name] = append(c.made[name], verb)
					} else {
						c.generic[verb] = true
					}
				}
			case *ast.SelectorExpr:
				for _, verb := range verbsOf[clientFunc(n)] {
					c.verbs[verb] = true
				}
				pkg, ok := n.X.(*ast.Ident)
				switch {
				case ok && apiPackage.MatchString(pkg.Name):
					c.messages[n.Sel.Name] = true
				case ok && pkg.Name == "controller" && n.Sel.Name == "NewDependents":
					// internal/controller claims, lists, creates and deletes for the service.
					for _, verb := range []Action{Get, List, Create, Patch, Delete} {
						c.generic[verb] = true
					}
				}
			}
			return true
		})
		return nil
	}
	var err error
	for _, root := range append([]string{"services/" + service}, elsewhere[service]...) {
		err = errors.Join(err, filepath.WalkDir(filepath.Join("..", "..", root), read))
	}
	if err != nil || len(c.verbs) == 0 {
		t.Fatalf("the source of %s: %v, %v", service, c.verbs, err)
	}
	return c
}

// clientFunc is the name in client.Name, empty for anything else.
func clientFunc(e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if pkg, ok := sel.X.(*ast.Ident); !ok || pkg.Name != "client" {
		return ""
	}
	return sel.Sel.Name
}

// messageName is Pod for *corev1.Pod, empty for a type parameter or an interface.
func messageName(e ast.Expr) string {
	star, ok := e.(*ast.StarExpr)
	if !ok {
		return ""
	}
	if sel, ok := star.X.(*ast.SelectorExpr); ok {
		return sel.Sel.Name
	}
	return ""
}

// TestRightsAreUsed holds the table against the services' source, in both directions: a right that
// no call of the service can need is refused, and each call that names its kind is allowed.
func TestRightsAreUsed(t *testing.T) {
	all := []Action{Get, List, Watch, Create, Update, UpdateStatus, Patch, Delete, DeleteCollection, Bind, WatchSummary}
	for _, service := range slices.Sorted(maps.Keys(services)) {
		t.Run(service, func(t *testing.T) {
			c := readCalls(t, service)
			caller := Caller{pki.ServiceUserPrefix + service, []string{GroupServices}}
			for _, k := range kinds.All() {
				message := string(k.MessageName().Name())
				for _, verb := range all {
					asked := request{Caller: caller, Verb: verb, Resource: k.Resource(), Name: "x"}
					if k.Namespaced {
						// What the rules limit to a namespace is asked for there.
						asked.Namespace = "default"
						for _, rule := range services[service] {
							if rule.namespace != "" && slices.Contains(rule.resources, k.Resource()) {
								asked.Namespace = rule.namespace
							}
						}
					}
					err := Check(t.Context(), Services{}, asked.attributes())
					allowed := err == nil
					if denied := (*ForbiddenError)(nil); !allowed && !errors.As(err, &denied) {
						t.Fatal(err)
					}
					named := slices.Contains(c.made[message], verb)
					switch {
					case named && !allowed:
						t.Errorf("the service calls %s on %s, and is refused: %v", verb, k.Plural, err)
					case !allowed || named:
					case k.Name == "Event" && k.Group == "" && slices.ContainsFunc(common, func(r rule) bool { return slices.Contains(r.actions, verb) }) && !slices.Contains(unelected, service):
						// internal/events does.
					case service == "collector":
						// It is generic in the kind.
						if !c.verbs[verb] && !c.generic[verb] {
							t.Errorf("the service may %s %s, and makes no such call", verb, k.Plural)
						}
					case !c.messages[message]:
						t.Errorf("the service may %s %s, which its source does not mention", verb, k.Plural)
					case (verb == List || verb == Watch) && !c.generic[verb], verb == Get && !c.generic[verb], !c.verbs[verb] && !c.generic[verb]:
						t.Errorf("the service may %s %s, and makes no such call", verb, k.Plural)
					}
				}
			}
		})
	}
}

// TestRightsOfServices has for each service what it must not: what others do, and what it did not
// need where the table was wider than the code.
func TestRightsOfServices(t *testing.T) {
	const leases = "leases.coordination.k8s.io"
	for service, refused := range map[string][]request{
		"gateway": {
			{Verb: List, Resource: "secrets"}, {Verb: Get, Resource: "secrets", Namespace: "a", Name: "s"}, {Verb: List, Resource: "pods"}, {Verb: Watch, Resource: "pods"},
			{Verb: List, Resource: leases, Namespace: "kube-node-lease"}, {Verb: List, Resource: leases}, {Verb: Create, Resource: leases, Namespace: "kube-system", Name: "gateway"},
			{Verb: Create, Resource: "events", Namespace: "a"}, {Verb: Update, Resource: "gatewayaccesses.gateway.xebec.io", Name: "default"},
		},
		"auth": {
			{Verb: List, Resource: "secrets"}, {Verb: Watch, Resource: "secrets"}, {Verb: Get, Resource: "secrets", Namespace: "a", Name: "s"}, {Verb: List, Resource: "pods"},
			{Verb: Get, Resource: "nodes", Name: "n"}, {Verb: Create, Resource: "events", Namespace: "a"}, {Verb: Create, Resource: leases, Namespace: "kube-system", Name: "auth"},
			{Verb: Update, Resource: "serviceaccounts", Namespace: "a", Name: "s"},
		},
		"scheduler": {
			{Verb: Update, Resource: "namespaces", Name: "a"}, {Verb: UpdateStatus, Resource: "services", Namespace: "a", Name: "s"}, {Verb: Watch, Resource: "replicasets.apps"}, {Verb: Update, Resource: "pods", Namespace: "a", Name: "p"},
			{Verb: Update, Resource: "events", Namespace: "a", Name: "e"}, {Verb: Update, Resource: leases, Namespace: "kube-system", Name: "scheduler"},
			{Verb: Update, Resource: "poddisruptionbudgets.policy", Namespace: "a", Name: "b"},
		},
		"workloads": {
			{Verb: Update, Resource: "nodes", Name: "n"}, {Verb: Watch, Resource: "namespaces"}, {Verb: Update, Resource: "deployments.apps", Namespace: "a", Name: "d"},
			{Verb: Evict, Resource: "pods", Namespace: "a", Name: "p"}, {Verb: Update, Resource: "pods", Namespace: "a", Name: "p"}, {Verb: Delete, Resource: "deployments.apps", Namespace: "a", Name: "d"},
		},
		"nodes": {
			{Verb: Patch, Resource: "nodes", Name: "n"}, {Verb: Delete, Resource: "nodes", Name: "n"}, {Verb: Patch, Resource: "pods", Namespace: "a", Name: "p"},
			{Verb: Watch, Resource: leases}, {Verb: Get, Resource: leases, Namespace: "kube-system", Name: "scheduler"}, {Verb: Delete, Resource: leases, Namespace: "kube-node-lease", Name: "n"},
		},
		"endpoints": {
			{Verb: Update, Resource: "services", Namespace: "a", Name: "s"}, {Verb: UpdateStatus, Resource: "services", Namespace: "a", Name: "s"}, {Verb: Watch, Resource: "namespaces"},
			{Verb: Patch, Resource: "endpointslices.discovery.k8s.io", Namespace: "a", Name: "e"},
		},
		"cloud": {
			{Verb: Update, Resource: "services", Namespace: "a", Name: "s"}, {Verb: List, Resource: "nodes"}, {Verb: Update, Resource: "ipaddresses.networking.k8s.io", Name: "10.0.0.1"},
		},
		"collector": {
			{Verb: Create, Resource: "pods", Namespace: "a"}, {Verb: Patch, Resource: "secrets", Namespace: "a", Name: "s"}, {Verb: UpdateStatus, Resource: "pods", Namespace: "a", Name: "p"},
			{Verb: Bind, Resource: "pods", Namespace: "a", Name: "p"},
		},
	} {
		t.Run(service, func(t *testing.T) {
			for _, r := range refused {
				r.Caller = Caller{pki.ServiceUserPrefix + service, []string{GroupServices}}
				if denied := (*ForbiddenError)(nil); !errors.As(Check(t.Context(), Services{}, r.attributes()), &denied) {
					t.Errorf("it may %s %s %s/%s", r.Verb, r.Resource, r.Namespace, r.Name)
				}
			}
		})
	}
	for service := range services {
		if slices.Contains(unelected, service) {
			continue
		}
		for _, verb := range election {
			r := request{Caller: Caller{pki.ServiceUserPrefix + service, []string{GroupServices}}, Verb: verb, Resource: leases, Namespace: "kube-system", Name: service}
			if err := Check(t.Context(), Services{}, r.attributes()); err != nil {
				t.Errorf("%s stands for election: %v", service, err)
			}
		}
	}
}
