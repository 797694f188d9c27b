package cli

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kind"
)

// tableOptions say which columns a table of objects has.
type tableOptions struct {
	// wide adds the columns that -o wide shows, everywhere the namespace.
	wide, everywhere bool
	noHeaders        bool
	showLabels       bool
	labelColumns     []string
}

// objectTable makes the table of one kind's objects. Where kinds are mixed, names are qualified.
func objectTable(f *found, o tableOptions, mixed bool, now time.Time) *table {
	columns := columnsOf(f.kind, o, mixed)
	t := &table{noHeads: o.noHeaders}
	for _, c := range columns {
		t.heads = append(t.heads, c.Name)
		if c.Name == "NAMESPACE" || c.Name == "NAME" {
			t.keep++
		}
	}
	for _, obj := range f.objects {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.Value(obj, now)
		}
		t.add(row...)
	}
	return t
}

func columnsOf(k *kind.Kind, o tableOptions, mixed bool) []kind.Column {
	var columns []kind.Column
	add := func(name string, value func(kind.Object) string) {
		columns = append(columns, kind.Column{Name: name, Value: func(obj kind.Object, _ time.Time) string { return value(obj) }})
	}
	if o.everywhere && k.Namespaced {
		add("NAMESPACE", func(obj kind.Object) string { return obj.GetMetadata().GetNamespace() })
	}
	if !k.HideName {
		add("NAME", func(obj kind.Object) string {
			if mixed {
				return referenceOf(obj).String()
			}
			return obj.GetMetadata().GetName()
		})
	}
	for _, c := range k.Columns {
		if !c.Wide || o.wide {
			columns = append(columns, c)
		}
	}
	for _, label := range o.labelColumns {
		add(strings.ToUpper(label[strings.LastIndexByte(label, '/')+1:]), func(obj kind.Object) string { return obj.GetMetadata().GetLabels()[label] })
	}
	if o.showLabels {
		add("LABELS", func(obj kind.Object) string { return pairs(obj.GetMetadata().GetLabels(), ",") })
	}
	return columns
}

// sortObjects orders the objects of each kind by a field; those that do not have it come first.
func sortObjects(sections []*found, by string) error {
	p, err := parsePath(strings.Trim(by, "{}"))
	if err != nil {
		return usagef("--sort-by %s: %w", by, err)
	}
	for _, f := range sections {
		type keyed struct {
			key    any
			object kind.Object
		}
		rows := make([]keyed, len(f.objects))
		for i, o := range f.objects {
			value, err := codec.ValueWhole(o)
			if err != nil {
				return err
			}
			rows[i].object = o
			if found, err := p.find(value); err == nil && len(found) > 0 {
				rows[i].key = found[0]
			}
		}
		slices.SortStableFunc(rows, func(a, b keyed) int {
			if a.key == nil || b.key == nil {
				return cmp.Compare(boolInt(a.key != nil), boolInt(b.key != nil))
			}
			order, _ := compareValues(a.key, b.key)
			return order
		})
		for i, r := range rows {
			f.objects[i] = r.object
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
