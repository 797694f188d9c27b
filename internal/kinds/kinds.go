// Package kinds registers the compiled-in kinds of objects. Each API group has a package below
// this one with its kinds: names and scope, defaults, rules that span fields, what a write may
// change, the columns of tables, and selectable fields.
//
// Adding a kind means a file with its rules in the package of its group, and an entry in that
// package's Kinds; no other package has a list of kinds.
package kinds

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	"github.com/xebec-project/xebec/internal/kinds/certificates"
	"github.com/xebec-project/xebec/internal/kinds/coordination"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	"github.com/xebec-project/xebec/internal/kinds/events"
	"github.com/xebec-project/xebec/internal/kinds/flowcontrol"
	"github.com/xebec-project/xebec/internal/kinds/gateway"
	"github.com/xebec-project/xebec/internal/kinds/networking"
	"github.com/xebec-project/xebec/internal/kinds/node"
	"github.com/xebec-project/xebec/internal/kinds/policy"
	"github.com/xebec-project/xebec/internal/kinds/resource"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	"github.com/xebec-project/xebec/internal/kinds/storage"
	"github.com/xebec-project/xebec/internal/scheme"
)

// builtin has the compiled-in kinds of all groups.
var builtin = slices.Concat(
	core.Kinds, apps.Kinds, batch.Kinds, certificates.Kinds, coordination.Kinds, discovery.Kinds, events.Kinds, flowcontrol.Kinds,
	gateway.Kinds, networking.Kinds, node.Kinds, policy.Kinds, resource.Kinds, scheduling.Kinds, storage.Kinds,
)

// NewScheme returns a scheme of the compiled-in kinds, to which others can be added. The
// descriptions are shared by all schemes.
func NewScheme() *scheme.Scheme {
	s, err := scheme.New(builtin...)
	if err != nil {
		panic("kinds: " + err.Error()) // The entry of a kind is wrong; tests fail first.
	}
	return s
}

// messages has the compiled-in kinds by the full name of their message.
var messages = sync.OnceValue(func() map[protoreflect.FullName]*scheme.Kind {
	m := make(map[protoreflect.FullName]*scheme.Kind, len(builtin))
	for _, k := range builtin {
		m[k.MessageName()] = k
	}
	return m
})

// Of returns the kind of an object whose kind is compiled in, or of a dynamic object. It panics for
// other objects: code that handles objects of any kind finds the kind in its scheme.
func Of(o scheme.Object) *scheme.Kind {
	if d, ok := o.(*scheme.Dynamic); ok {
		return d.Kind()
	}
	name := o.ProtoReflect().Descriptor().FullName()
	k, ok := messages()[name]
	if !ok {
		panic("kinds: " + string(name) + " is not compiled in")
	}
	return k
}
