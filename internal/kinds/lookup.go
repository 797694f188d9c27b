package kinds

import (
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/scheme"
)

// compiledIn is the scheme of callers that have not been given one.
var compiledIn = sync.OnceValue(NewScheme)

// All returns every compiled-in kind, by group and then by name, core first.
func All() []*scheme.Kind { return compiledIn().Kinds() }

// ByName finds a compiled-in kind by a name that users type; see scheme.ByName.
func ByName(name string) (*scheme.Kind, bool) { return compiledIn().ByName(name) }

// ByGroupKind finds a compiled-in kind by its group, empty for core, and its name as manifests
// write it.
func ByGroupKind(group, name string) (*scheme.Kind, bool) {
	return compiledIn().ByGroupKind(group, name)
}

// ByAPIVersionKind finds a compiled-in kind by the apiVersion and kind of a manifest, both exactly
// as written there.
func ByAPIVersionKind(apiVersion, name string) (*scheme.Kind, bool) {
	return compiledIn().ByAPIVersionKind(apiVersion, name)
}

// ByMessage finds a compiled-in kind by the full name of its message.
func ByMessage(name protoreflect.FullName) (*scheme.Kind, bool) { return compiledIn().ByMessage(name) }

// OfTypeURL finds a compiled-in kind by the type URL of a google.protobuf.Any.
func OfTypeURL(url string) (*scheme.Kind, bool) { return compiledIn().ByTypeURL(url) }
