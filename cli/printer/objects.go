package printer

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/jsonpath"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/scheme"
)

// TableOptions say which columns a table of objects has.
type TableOptions struct {
	// wide adds the columns that -o wide shows, everywhere the namespace.
	Wide, Everywhere bool
	NoHeaders        bool
	ShowLabels       bool
	LabelColumns     []string
}

// ObjectTable makes the table of one kind's objects. Where kinds are mixed, names are qualified.
func ObjectTable(f *resolve.Found, o TableOptions, mixed bool, now time.Time) *Table {
	columns := columnsOf(f.Kind, o, mixed)
	t := &Table{NoHeads: o.NoHeaders}
	for _, c := range columns {
		t.Heads = append(t.Heads, c.Name)
		if c.Name == "NAMESPACE" || c.Name == "NAME" {
			t.Keep++
		}
	}
	for _, obj := range f.Objects {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.Value(obj, now)
		}
		t.Add(row...)
	}
	return t
}

func columnsOf(k *scheme.Kind, o TableOptions, mixed bool) []scheme.Column {
	var columns []scheme.Column
	add := func(name string, value func(scheme.Object) string) {
		columns = append(columns, scheme.Column{Name: name, Value: func(obj scheme.Object, _ time.Time) string { return value(obj) }})
	}
	if o.Everywhere && k.Namespaced {
		add("NAMESPACE", func(obj scheme.Object) string { return obj.GetMetadata().GetNamespace() })
	}
	if !k.HideName {
		add("NAME", func(obj scheme.Object) string {
			if mixed {
				return resolve.Of(obj).String()
			}
			return obj.GetMetadata().GetName()
		})
	}
	for _, c := range k.Columns {
		if !c.Wide || o.Wide {
			columns = append(columns, c)
		}
	}
	for _, label := range o.LabelColumns {
		add(
			strings.ToUpper(label[strings.LastIndexByte(label, '/')+1:]),
			func(obj scheme.Object) string { return obj.GetMetadata().GetLabels()[label] },
		)
	}
	if o.ShowLabels {
		add("LABELS", func(obj scheme.Object) string { return Pairs(obj.GetMetadata().GetLabels(), ",") })
	}
	return columns
}

// Sort orders the objects of each kind by a field; those that do not have it come first.
func Sort(sections []*resolve.Found, by string) error {
	p, err := jsonpath.ParsePath(strings.Trim(by, "{}"))
	if err != nil {
		return exit.Usagef("invalid --sort-by value %q: %w", by, err)
	}
	for _, f := range sections {
		type keyed struct {
			key    any
			object scheme.Object
		}
		rows := make([]keyed, len(f.Objects))
		for i, o := range f.Objects {
			value, err := codec.ValueWhole(o)
			if err != nil {
				return err
			}
			rows[i].object = o
			if found, err := p.Find(value); err == nil && len(found) > 0 {
				rows[i].key = found[0]
			}
		}
		slices.SortStableFunc(rows, func(a, b keyed) int {
			if a.key == nil || b.key == nil {
				return cmp.Compare(boolInt(a.key != nil), boolInt(b.key != nil))
			}
			order, _ := jsonpath.Compare(a.key, b.key)
			return order
		})
		for i, r := range rows {
			f.Objects[i] = r.object
		}
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
