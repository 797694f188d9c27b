package kind

import (
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/wire"
)

const typeURLPrefix = "type.googleapis.com/"

// metaFields are selectable on every kind.
var metaFields = map[string][]protowire.Number{
	"metadata.name":      {1, 1},
	"metadata.namespace": {1, 3},
}

type groupKind struct{ group, kind string }

type lookups struct {
	names     map[string]*Kind
	kinds     map[groupKind]*Kind
	versions  map[groupKind]*Kind
	resources map[groupKind]*Kind
	messages  map[protoreflect.FullName]*Kind
	fields    map[*Kind]map[string]wire.Field
}

// index is built on first use, so that importing the package costs nothing.
var index = sync.OnceValue(func() *lookups {
	l := &lookups{
		names:     map[string]*Kind{},
		kinds:     map[groupKind]*Kind{},
		versions:  map[groupKind]*Kind{},
		resources: map[groupKind]*Kind{},
		messages:  map[protoreflect.FullName]*Kind{},
		fields:    map[*Kind]map[string]wire.Field{},
	}
	for _, k := range table {
		names := append([]string{k.Plural, k.Singular}, k.ShortNames...)
		for _, name := range names {
			for _, typed := range []string{name, name + "." + k.Group, name + "." + k.Version + "." + k.Group} {
				// The core group is not written: only the bare name is typed for its kinds.
				if !strings.HasSuffix(typed, ".") {
					l.names[typed] = k
				}
			}
		}
		l.kinds[groupKind{k.Group, k.Name}] = k
		l.versions[groupKind{k.APIVersion(), k.Name}] = k
		l.resources[groupKind{k.Group, k.Plural}] = k
		l.messages[k.MessageName()] = k
		l.fields[k] = map[string]wire.Field{}
		for _, name := range k.SelectableFields() {
			path, _ := k.FieldPath(name)
			l.fields[k][name] = resolve(k, path)
		}
	}
	return l
})

// All returns every kind, by group and then by name, core first.
func All() []*Kind { return slices.Clone(table) }

// ByName finds a kind by what people type: the plural, the singular, a short name or the kind itself, in any case, and
// qualified by the group where there is one (deployments.apps, deployments.v1.apps).
func ByName(name string) (*Kind, bool) {
	k, ok := index().names[strings.ToLower(name)]
	return k, ok
}

// ByGroupKind finds a kind by its group, empty for core, and its name as manifests write it.
func ByGroupKind(group, name string) (*Kind, bool) {
	k, ok := index().kinds[groupKind{group, name}]
	return k, ok
}

// ByResource finds a kind by its group, empty for core, and its plural.
func ByResource(group, plural string) (*Kind, bool) {
	k, ok := index().resources[groupKind{group, plural}]
	return k, ok
}

// ByAPIVersionKind finds a kind by the apiVersion and kind of a manifest, both exactly as written there.
func ByAPIVersionKind(apiVersion, name string) (*Kind, bool) {
	k, ok := index().versions[groupKind{apiVersion, name}]
	return k, ok
}

// ByMessage finds a kind by the full name of its message.
func ByMessage(name protoreflect.FullName) (*Kind, bool) {
	k, ok := index().messages[name]
	return k, ok
}

// OfTypeURL finds a kind by the type URL of a google.protobuf.Any; what stands before the last slash does not count.
func OfTypeURL(url string) (*Kind, bool) {
	return ByMessage(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
}

// Of returns the kind of an object. It panics on a message that is not in the table, which no caller can hold by
// accident: objects come from New or from this table's messages.
func Of(o Object) *Kind {
	name := o.ProtoReflect().Descriptor().FullName()
	k, ok := ByMessage(name)
	if !ok {
		panic("kind: " + string(name) + " is not in the table")
	}
	return k
}
