// Package kind has the compiled-in kinds of objects: names and scope, defaults, validation, what a
// write may change, the columns of tables, and selectable fields. NewScheme registers them.
//
// Adding a kind means one entry in table.go and one file with its rules; no other package has a
// list of kinds.
package kind

import (
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/scheme"
)

// Object is a message of a kind.
type Object = scheme.Object

// Column is one column of a table.
type Column = scheme.Column

// Kind describes a kind.
type Kind = scheme.Kind

// NewScheme returns a scheme of the compiled-in kinds, to which others can be added. The
// descriptions are shared by all schemes.
func NewScheme() *scheme.Scheme {
	s, err := scheme.New(builtin...)
	if err != nil {
		panic("kind: " + err.Error()) // An entry of the table is wrong; tests fail first.
	}
	return s
}

// messages has the compiled-in kinds by the full name of their message.
var messages = sync.OnceValue(func() map[protoreflect.FullName]*Kind {
	m := make(map[protoreflect.FullName]*Kind, len(builtin))
	for _, k := range builtin {
		m[k.MessageName()] = k
	}
	return m
})

// Of returns the kind of an object whose kind is compiled in, or of a dynamic object. It panics for
// other objects: code that handles objects of any kind finds the kind in its scheme.
func Of(o Object) *Kind {
	if d, ok := o.(*scheme.Dynamic); ok {
		return d.Kind()
	}
	name := o.ProtoReflect().Descriptor().FullName()
	k, ok := messages()[name]
	if !ok {
		panic("kind: " + string(name) + " is not compiled in")
	}
	return k
}
