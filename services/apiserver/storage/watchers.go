package storage

import (
	"iter"

	"github.com/xebec-project/xebec/internal/wire"
)

// watchers are those of one kind. Watches of one value of a field, such as those of the nodes for
// their own pods, are found by that value: there are thousands, and a change concerns one or two of
// them.
type watchers struct {
	all   map[*watcher]struct{}    // that have no exact value
	exact map[string]*exactWatches // by the name of the field
}

// exactWatches are the watches of values of one field.
type exactWatches struct {
	field   wire.Field
	byValue map[string]map[*watcher]struct{}
}

func newWatchers() watchers {
	return watchers{all: make(map[*watcher]struct{}), exact: make(map[string]*exactWatches)}
}

func (ws *watchers) add(w *watcher) {
	if w.exact == nil {
		ws.all[w] = struct{}{}
		return
	}
	of := ws.exact[w.exact.Name]
	if of == nil {
		of = &exactWatches{field: w.exact.Field, byValue: make(map[string]map[*watcher]struct{})}
		ws.exact[w.exact.Name] = of
	}
	if of.byValue[w.exact.Value] == nil {
		of.byValue[w.exact.Value] = make(map[*watcher]struct{})
	}
	of.byValue[w.exact.Value][w] = struct{}{}
}

func (ws *watchers) remove(w *watcher) {
	if w.exact == nil {
		delete(ws.all, w)
		return
	}
	of := ws.exact[w.exact.Name]
	if of == nil {
		return
	}
	delete(of.byValue[w.exact.Value], w)
	if len(of.byValue[w.exact.Value]) == 0 {
		delete(of.byValue, w.exact.Value)
	}
	if len(of.byValue) == 0 {
		delete(ws.exact, w.exact.Name)
	}
}

// each yields all watchers.
func (ws *watchers) each() iter.Seq[*watcher] {
	return func(yield func(*watcher) bool) {
		for w := range ws.all {
			if !yield(w) {
				return
			}
		}
		for _, of := range ws.exact {
			for _, same := range of.byValue {
				for w := range same {
					if !yield(w) {
						return
					}
				}
			}
		}
	}
}

// concerned yields the watchers that may see a change: those without an exact value, and those of a
// value that the object has or had before.
func (ws *watchers) concerned(c *change) iter.Seq[*watcher] {
	return func(yield func(*watcher) bool) {
		for w := range ws.all {
			if !yield(w) {
				return
			}
		}
		for _, of := range ws.exact {
			last, seen := "", false
			for _, o := range []*Object{c.object, c.previous} {
				if o == nil {
					continue
				}
				value := o.Field(of.field)
				if seen && value == last {
					continue
				}
				last, seen = value, true
				for w := range of.byValue[value] {
					if !yield(w) {
						return
					}
				}
			}
		}
	}
}
