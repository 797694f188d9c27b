package schema

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// element is one step of the path from an object to a value: a field, an element of a list or a key
// of a map.
type element struct {
	name  string // empty for an element of a list
	index int
	isKey bool // name is the key of a map
}

// place is the path to the value that is checked. It is converted to a field.Path only for errors.
type place struct {
	root     *field.Path
	elements []element
}

func (p *place) push(name string) { p.elements = append(p.elements, element{name: name}) }

func (p *place) pushIndex(i int) { p.elements = append(p.elements, element{index: i}) }

func (p *place) pushKey(key string) { p.elements = append(p.elements, element{name: key, isKey: true}) }

func (p *place) pop() { p.elements = p.elements[:len(p.elements)-1] }

// path returns the place as a path.
func (p *place) path() *field.Path {
	at := p.root
	for _, e := range p.elements {
		switch {
		case e.isKey:
			at = at.Key(e.name)
		case e.name == "":
			at = at.Index(e.index)
		case at == nil:
			at = field.NewPath(e.name)
		default:
			at = at.Child(e.name)
		}
	}
	return at
}
