package docs

import (
	"bytes"
	"go/ast"
	"go/token"
	"regexp"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/cli"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/lab"
	"github.com/xebec-project/xebec/tests/markdown"
)

// instrument is a metric as the code makes it.
type instrument struct {
	kind   string
	labels []string
	// by is the package that registers it.
	by string
}

// metricsTable joins the names in internal/metrics with the calls that make the metrics.
func metricsTable(t *testing.T) string {
	names := constants(parse(t, "internal/metrics"))
	labels := map[string]string{}
	for _, c := range names {
		labels[c.name] = c.value
	}
	made := map[string]instrument{}
	for _, dir := range []string{"internal", "services", "agent"} {
		for _, file := range parseAll(t, dir) {
			for _, m := range instruments(file, labels) {
				made[m.name] = m.instrument
			}
		}
	}
	var rows [][]string
	for _, c := range names {
		if !strings.HasPrefix(c.value, "xebec_") || strings.HasSuffix(c.name, "Namespace") {
			continue
		}
		m, ok := made[c.name]
		if !ok {
			t.Errorf("metrics.%s: no code makes the metric %s", c.name, c.value)
		}
		rows = append(rows, []string{code(c.value), m.kind, strings.Join(m.labels, ", "), describe(c), code(m.by)})
	}
	return markdown.Table([]string{"metric", "kind", "labels", "", "made in package"}, rows)
}

// describe is a constant's comment without the constant's name before it.
func describe(c constant) string {
	doc := strings.TrimPrefix(c.doc, c.name+" ")
	doc = strings.TrimPrefix(strings.TrimPrefix(doc, "is "), "counts ")
	if strings.HasPrefix(c.doc, c.name+" counts ") {
		return "Counts " + doc
	}
	return strings.ToUpper(doc[:1]) + doc[1:]
}

type namedInstrument struct {
	name string
	instrument
}

// instruments finds the calls such as prometheus.NewCounterVec(prometheus.CounterOpts{Name:
// metrics.X}, labels).
func instruments(file *ast.File, labels map[string]string) []namedInstrument {
	var found []namedInstrument
	slicesOf := map[string][]string{} // local variables that hold labels
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if len(n.Lhs) == 1 && len(n.Rhs) == 1 {
				if id, ok := n.Lhs[0].(*ast.Ident); ok {
					if l := labelsIn(n.Rhs[0], labels); l != nil {
						slicesOf[id.Name] = l
					}
				}
			}
		case *ast.CallExpr:
			fun, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || !strings.HasPrefix(fun.Sel.Name, "New") || len(n.Args) == 0 {
				return true
			}
			if described, ok := n.Args[0].(*ast.SelectorExpr); ok && fun.Sel.Name == "NewDesc" && len(n.Args) > 2 {
				// What is read when it is asked for; of these all are counters.
				m := namedInstrument{name: described.Sel.Name, instrument: instrument{by: file.Name.Name, kind: "counter"}}
				m.labels = labelsIn(n.Args[2], labels)
				found = append(found, m)
				return true
			}
			name := metricName(n.Args[0])
			if name == "" {
				return true
			}
			m := namedInstrument{name: name, instrument: instrument{by: file.Name.Name}}
			m.kind = strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(fun.Sel.Name, "New"), "Vec"), "Func"))
			if strings.HasSuffix(fun.Sel.Name, "Vec") && len(n.Args) > 1 {
				m.labels = labelsIn(n.Args[1], labels)
				if id, ok := n.Args[1].(*ast.Ident); ok {
					m.labels = slicesOf[id.Name]
				}
			}
			found = append(found, m)
		}
		return true
	})
	return found
}

// metricName is the constant in Name: metrics.X of a composite literal.
func metricName(e ast.Expr) string {
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return ""
	}
	for _, element := range lit.Elts {
		kv, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		field, _ := kv.Key.(*ast.Ident)
		value, ok := kv.Value.(*ast.SelectorExpr)
		if !ok || field == nil || field.Name != "Name" {
			continue
		}
		if pkg, ok := value.X.(*ast.Ident); ok && pkg.Name == "metrics" {
			return value.Sel.Name
		}
	}
	return ""
}

// labelsIn reads []string{metrics.LabelX, ...}; nil for anything else.
func labelsIn(e ast.Expr, labels map[string]string) []string {
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil
	}
	var out []string
	for _, element := range lit.Elts {
		if x, ok := element.(*ast.SelectorExpr); ok {
			out = append(out, labels[x.Sel.Name])
		}
	}
	return out
}

// logKeys lists the keys of structured log fields.
func logKeys(t *testing.T) string {
	var keys []string
	for _, c := range constants(parse(t, "internal/metrics")) {
		if strings.HasPrefix(c.name, "Key") {
			keys = append(keys, code(c.value))
		}
	}
	return strings.Join(keys, ", ") + "\n"
}

// reasons lists the reasons that errors carry.
func reasons(t *testing.T) string {
	var rows [][]string
	for _, from := range []struct{ dir, who string }{
		{"internal/apierr", "every service"}, {"internal/edge", "every server, before a handler runs"}, {"internal/rpc", "every server"},
		{"internal/elected", "controllers"}, {"services/gateway", "gateway"}, {"agent/server", "agent"},
	} {
		for _, c := range constants(parse(t, from.dir)) {
			if name, ok := strings.CutPrefix(c.name, "Reason"); ok && name != "" {
				doc := strings.TrimLeft(strings.TrimPrefix(strings.TrimPrefix(c.doc, c.name), ","), ": ")
				rows = append(rows, []string{code(c.value), from.who, strings.ToUpper(doc[:1]) + doc[1:]})
			}
		}
	}
	return markdown.Table([]string{"reason", "from", ""}, rows)
}

// listKinds lists the kinds of the table.
func listKinds(*testing.T) string {
	yes := map[bool]string{true: "yes", false: "no"}
	var rows [][]string
	for _, k := range kinds.NewScheme().Served() {
		fields := make([]string, 0)
		for _, f := range k.SelectableFields() {
			if !strings.HasPrefix(f, "metadata.") {
				fields = append(fields, code(f))
			}
		}
		rows = append(rows, []string{
			k.Name, code(k.APIVersion()), code(k.Plural), strings.Join(k.ShortNames, ", "), yes[k.Namespaced], yes[k.HasStatus()], strings.Join(fields, ", "),
		})
	}
	return markdown.Table([]string{"kind", "apiVersion", "plural", "short", "in a namespace", "status", "field selectors, besides metadata.name and .namespace"}, rows)
}

// rights lists what services may do, from the table in internal/authz/services.go.
func rights(t *testing.T) string {
	variables := map[string]ast.Expr{}
	verbs := map[string]string{}
	for _, file := range parse(t, "internal/authz") {
		for _, c := range constants([]*ast.File{file}) {
			verbs[c.name] = c.value
		}
		for _, decl := range file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				if len(v.Values) > 0 {
					variables[v.Names[0].Name] = v.Values[0]
				}
			}
		}
	}
	// list reads a slice of strings or verbs, through variables, append and slices.Clone.
	var list func(e ast.Expr) []string
	list = func(e ast.Expr) []string {
		switch e := e.(type) {
		case *ast.BasicLit:
			return []string{strings.Trim(e.Value, `"`)}
		case *ast.Ident:
			if verb, ok := verbs[e.Name]; ok {
				return []string{verb}
			}
			return list(variables[e.Name])
		case *ast.CompositeLit:
			var out []string
			for _, element := range e.Elts {
				out = append(out, list(element)...)
			}
			return out
		case *ast.CallExpr:
			var out []string
			for _, arg := range e.Args {
				out = append(out, list(arg)...)
			}
			return out
		}
		t.Fatalf("services.go has an expression that this generator cannot read: %T", e)
		return nil
	}
	var rows [][]string
	add := func(service string, rules ast.Expr) {
		for _, r := range rules.(*ast.CompositeLit).Elts {
			parts := r.(*ast.CompositeLit).Elts
			resources := list(parts[0])
			for i, name := range resources {
				resources[i] = strings.Replace(code(name), "`*`", "everything", 1)
			}
			on := strings.Join(resources, ", ")
			if namespace := list(parts[2])[0]; namespace != "" {
				on += " in " + namespace
			}
			rows = append(rows, []string{service, strings.Join(list(parts[1]), ", "), on})
		}
	}
	add("every service", variables["every"])
	add("every elected service", variables["common"])
	services, ok := variables["services"].(*ast.CompositeLit)
	if !ok {
		t.Fatal("internal/authz has no table of services")
	}
	for _, element := range services.Elts {
		kv := element.(*ast.KeyValueExpr)
		add(list(kv.Key)[0], kv.Value)
	}
	return markdown.Table([]string{"service", "may", "on"}, rows)
}

// labCommands lists what `xebec lab` can do.
func labCommands(*testing.T) string {
	var rows [][]string
	for _, c := range lab.Command().Commands() {
		if !c.Hidden {
			rows = append(rows, []string{code("xebec lab " + c.Use), c.Short})
		}
	}
	return markdown.Table([]string{"command", ""}, rows)
}

// helpLine is a command in the help of xebec.
var helpLine = regexp.MustCompile(`^  ([a-z-]+) +(\S.*)$`)

// commands lists what xebec can do, by the groups of its help.
func commands(t *testing.T) string {
	var out bytes.Buffer
	if code := cli.Run(t.Context(), []string{"--help"}, session.Streams{In: strings.NewReader(""), Out: &out, Err: &out}, lab.Command()); code != exit.OK {
		t.Fatalf("xebec --help: exit code %d: %s", code, out.String())
	}
	var rows [][]string
	group := ""
	for line := range strings.Lines(out.String()) {
		if heading, ok := strings.CutSuffix(strings.TrimSpace(line), ":"); ok {
			group = strings.TrimPrefix(heading, "Additional ")
			continue
		}
		if m := helpLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil && group != "Usage" && group != "Flags" {
			rows = append(rows, []string{group, code("xebec " + m[1]), m[2]})
		}
	}
	if len(rows) < 10 {
		t.Fatalf("the help of xebec has another form than this generator reads:\n%s", out.String())
	}
	return markdown.Table([]string{"", "command", ""}, rows)
}
