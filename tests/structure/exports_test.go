package structure

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// export is an exported name of a package.
type export struct{ dir, name string }

// calledByLibraries are exported methods that no code of this tree names, because a library or the
// language calls them through an interface of its own.
var calledByLibraries = []string{
	"Unwrap",                   // errors.Is, errors.As
	"UnmarshalYAML",            // go.yaml.in/yaml
	"ServeDNS",                 // dns.Handler
	"RequireTransportSecurity", // credentials.PerRPCCredentials
	"ResolveNow",               // resolver.Resolver
	"ServerReporter",           // interceptors.ServerReportable
	"PostMsgReceive",           // interceptors.Reporter
	"Zero",                     // protoreflect.MessageType
	"IsMissingVersionError",    // merge.Converter
}

// kept are exported names without callers in code, each with the reason.
var kept = map[export]string{
	{"internal/apierr", "RequestID"}:             "clients of the API find a call in the logs by it",
	{"internal/client", "GetAt"}:                 "the form of GetKindAt for a type known at compile time",
	{"internal/kinds", "All"}:                    "tests of many packages check every kind",
	{"internal/kinds/core", "Capabilities"}:      "agent/runtime compares the list with the kernel's",
	{"internal/edge", "ConnContext"}:             "a field of http.Server",
	{"internal/kinds/rules", "FromDescriptor"}:   "the rules of kinds that are registered at run time",
	{"internal/schema/openapi", "Document"}:      "the documents that are generated for clients",
	{"internal/schema/openapi", "GroupVersions"}: "the documents that are generated for clients",
	{"tests/madeup", "Control"}:                  "the controller of a kind that only a test has",
	{"internal/kinds", "OfTypeURL"}:              "servers for tests decode requests with it",
	{"internal/edge", "ContextWithIdentity"}:     "tests call handlers without a server",
	{"internal/method", "Each"}:                  "tests check every method",
	{"internal/object", "Count"}:                 "tests of many packages write such values",
	{"internal/object", "Text"}:                  "tests of many packages write such values",
	{"internal/scheme", "ByGVR"}:                 "lookups of a registry are complete",
	{"internal/scheme", "ByResource"}:            "lookups of a registry are complete",
	{"internal/scheme", "Unregister"}:            "the counterpart of Register",
}

// uses counts what the code of the tree names.
type uses struct {
	// code and tests are the exported names that other packages use.
	code, tests map[export]bool
	// own counts the identifiers in the code of each package.
	own map[export]int
	// selected are all names after a dot in code, and the methods of interfaces.
	selected map[string]bool
	// selectedInTests are all names after a dot in tests.
	selectedInTests map[string]bool
}

func usesOf(all []*source) uses {
	u := uses{map[export]bool{}, map[export]bool{}, map[export]int{}, map[string]bool{}, map[string]bool{}}
	for _, s := range all {
		aliases := s.aliases()
		names, selected := u.code, u.selected
		if s.test() || forTests(s.dir()) {
			names, selected = u.tests, u.selectedInTests
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				if !s.test() {
					u.own[export{s.dir(), n.Name}]++
				}
			case *ast.SelectorExpr:
				selected[n.Sel.Name] = true
				if x, ok := n.X.(*ast.Ident); ok && aliases[x.Name] != "" {
					names[export{aliases[x.Name], n.Sel.Name}] = true
				}
			case *ast.InterfaceType:
				for _, m := range n.Methods.List {
					for _, name := range m.Names {
						selected[name.Name] = true
					}
				}
			}
			return true
		})
	}
	return u
}

// forTests reports whether only tests import a package.
func forTests(dir string) bool {
	return strings.HasPrefix(dir, "tests/") || strings.HasSuffix(dir, "test") || path.Base(dir) == "netlab"
}

// TestExportsAreUsed finds exported functions, variables, constants and methods that no code uses.
// A name that only tests use is dead too, except in packages that are for tests. Types are exempt,
// because a caller can use a type without naming it, and so are constants of a group of which some
// are used, because they list what a field can contain.
func TestExportsAreUsed(t *testing.T) {
	all := sources(t)
	u := usesOf(all)
	unused := func(dir, name string) bool {
		e := export{dir, name}
		return ast.IsExported(name) && kept[e] == "" && !u.code[e] && u.own[e] < 2 && !(forTests(dir) && u.tests[e])
	}
	for _, s := range all {
		if s.test() || s.generated || s.syntax.Name.Name == "main" {
			continue
		}
		for _, decl := range s.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				switch {
				case d.Recv == nil && unused(s.dir(), name):
					t.Errorf("%s: no code uses function %s", s.at(d), name)
				case d.Recv != nil && ast.IsExported(name) && !u.selected[name] && kept[export{s.dir(), name}] == "" && !slices.Contains(calledByLibraries, name) &&
					!(forTests(s.dir()) && u.selectedInTests[name]):
					t.Errorf("%s: no code calls method %s", s.at(d), name)
				}
			case *ast.GenDecl:
				var names, dead []string
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range v.Names {
							names = append(names, name.Name)
							if unused(s.dir(), name.Name) {
								dead = append(dead, name.Name)
							}
						}
					}
				}
				if d.Tok == token.CONST && len(dead) < len(names) {
					continue
				}
				for _, name := range dead {
					t.Errorf("%s: no code uses %s %s", s.at(d), d.Tok, name)
				}
			}
		}
	}
}

// aliases maps the names by which a file knows packages of this tree to their directories.
func (s *source) aliases() map[string]string {
	names := map[string]string{}
	for _, spec := range s.syntax.Imports {
		dir, ok := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module)
		switch {
		case !ok:
		case spec.Name != nil:
			names[spec.Name.Name] = dir
		default:
			names[path.Base(dir)] = dir
		}
	}
	return names
}
