package structure

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The most lines of a file that a person wrote. Tests may be longer: a table is read by its rows.
const (
	maxLines     = 600
	maxTestLines = 900
)

// TestFileLength keeps files to a length that is read in one go.
func TestFileLength(t *testing.T) {
	for _, s := range sources(t) {
		limit := maxLines
		if s.test() {
			limit = maxTestLines
		}
		if !s.generated && s.lines > limit {
			t.Errorf("%s has %d lines, more than %d: split it by ideas", s.path, s.lines, limit)
		}
	}
}

// TestPackageDocs demands that every package says what it is for.
func TestPackageDocs(t *testing.T) {
	type state struct{ documented, generated bool }
	packages := map[string]*state{}
	for _, s := range sources(t) {
		p := packages[s.dir()]
		if p == nil {
			p = &state{generated: true}
			packages[s.dir()] = p
		}
		p.generated = p.generated && s.generated
		p.documented = p.documented || s.syntax.Doc != nil && strings.TrimSpace(s.syntax.Doc.Text()) != ""
	}
	for dir, p := range packages {
		if !p.documented && !p.generated {
			t.Errorf("package %s has no doc comment", dir)
		}
	}
}

// vagueNames say nothing of what a package is about.
var vagueNames = []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "shared", "base"}

// TestPackageNames refuses names under which everything finds a place.
func TestPackageNames(t *testing.T) {
	for _, s := range sources(t) {
		if name := s.syntax.Name.Name; slices.Contains(vagueNames, name) || slices.Contains(vagueNames, path.Base(s.dir())) {
			t.Errorf("%s: package %s is named for no idea", s.path, name)
		}
	}
}

// TestExportedNamesAreDocumented demands the contract of everything that other packages can use.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.generated {
			continue
		}
		before := "" // the comment of the declaration above, which may speak of a pair
		for _, decl := range s.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Doc != nil {
					before = d.Doc.Text()
				}
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil && !strings.Contains(before, d.Name.Name) {
					t.Errorf("%s: %s has no doc comment", s.at(d), d.Name.Name)
				}
			case *ast.GenDecl:
				before = ""
				if d.Tok == token.TYPE || d.Tok == token.VAR || d.Tok == token.CONST {
					undocumented(t, s, d)
				}
			}
		}
	}
}

// wellKnown methods implement interfaces that every reader knows.
var wellKnown = []string{"String", "Error", "Unwrap", "Len", "Less", "Swap", "Push", "Pop", "Read", "Write", "Close", "Set", "Type", "Build", "ResolveNow", "Scheme"}

// exportedReceiver reports whether a function, or the type that a method is of, can be seen from
// outside.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	if slices.Contains(wellKnown, d.Name.Name) {
		return false
	}
	exported := false
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && !exported {
			exported = id.IsExported()
			return false
		}
		return true
	})
	return exported
}

// undocumented reports the exported names of a declaration that neither it nor their own line
// describes.
func undocumented(t *testing.T, s *source, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		var names []*ast.Ident
		documented := d.Doc != nil
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			names = []*ast.Ident{spec.Name}
			documented = documented || spec.Doc != nil
		case *ast.ValueSpec:
			names = spec.Names
			documented = documented || spec.Doc != nil || spec.Comment != nil
		}
		for _, name := range names {
			if name.IsExported() && !documented {
				t.Errorf("%s: %s has no doc comment", s.at(name), name.Name)
			}
		}
	}
}

// TestNoSleepInTests demands that tests wait for conditions, not for time to pass. In a bubble of
// testing/synctest no time passes: there time.Sleep is how a test moves the clock.
func TestNoSleepInTests(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test() && !strings.HasPrefix(s.path, "tests/") && !strings.HasSuffix(s.dir(), "test") {
			continue
		}
		var bubbles []ast.Node
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if refers(n.Fun, "synctest", "Test") {
					bubbles = append(bubbles, n)
				}
			case *ast.SelectorExpr:
				inBubble := slices.ContainsFunc(bubbles, func(b ast.Node) bool { return b.Pos() <= n.Pos() && n.End() <= b.End() })
				if refers(n, "time", "Sleep") && !inBubble {
					t.Errorf("%s: time.Sleep: wait for what should happen, or fake the time with testing/synctest", s.at(n))
				}
			}
			return true
		})
	}
}

// refers reports whether an expression is pkg.name.
func refers(e ast.Expr, pkg, name string) bool {
	x, ok := e.(*ast.SelectorExpr)
	if !ok || x.Sel.Name != name {
		return false
	}
	id, ok := x.X.(*ast.Ident)
	return ok && id.Name == pkg
}

// mayInit are the packages that do work when they are imported, each with its reason.
var mayInit = map[string]string{
	"agent/companion": "turns the agent's program into a log writer or another small process before its other packages are initialized, which takes longer than those need",
}

// TestNoInit refuses work that importing a package would do unasked.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated || mayInit[s.dir()] != "" {
			continue
		}
		for _, decl := range s.syntax.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: func init: let the caller make what it needs", s.at(f))
			}
		}
	}
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

// TestNothingUnfinished refuses notes about work that is left: an issue is the place for those.
func TestNothingUnfinished(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated || s.dir() == "tests/structure" {
			continue
		}
		for _, group := range s.syntax.Comments {
			for _, c := range group.List {
				if word := unfinished.FindString(c.Text); word != "" {
					t.Errorf("%s: a comment says %s", s.at(c), word)
				}
			}
		}
	}
}

// TestLogKeysAndMetricNamesAreConstants demands that keys of log fields and names of metrics are
// constants of internal/metrics, so that queries and dashboards have one list.
func TestLogKeysAndMetricNamesAreConstants(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.generated || s.dir() == "internal/metrics" || strings.HasPrefix(s.path, "tests/") {
			continue
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if isLogField(n) {
					t.Errorf("%s: the key of a log field is a literal: add a constant to internal/metrics", s.at(n))
				}
			case *ast.BasicLit:
				if n.Kind == token.STRING && strings.HasPrefix(n.Value, `"xebec_`) {
					t.Errorf("%s: %s is the name of a metric: add a constant to internal/metrics", s.at(n), n.Value)
				}
			}
			return true
		})
	}
}

// isLogField reports whether a call makes a field of zap with a literal as its key.
func isLogField(call *ast.CallExpr) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) != 2 {
		return false
	}
	pkg, ok := selector.X.(*ast.Ident)
	literal, isLiteral := call.Args[0].(*ast.BasicLit)
	return ok && pkg.Name == "zap" && isLiteral && literal.Kind == token.STRING
}
