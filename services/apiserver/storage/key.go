package storage

import (
	"fmt"
	"strings"
)

// Prefixes in etcd. Everything Xebec keeps there lies under Root, and no other program may write
// under it.
const (
	// Root is the prefix of all of Xebec's keys.
	Root = "/xebec/"
	// RegistryPrefix is the prefix of the keys of objects.
	RegistryPrefix = Root + "registry/"
	// leasePrefix is the prefix of the keys that name the owners of leases.
	leasePrefix = Root + "leases/"
)

const (
	coreSegment    = "core" // stands for the empty group
	clusterSegment = "_"    // stands for the empty namespace; no namespace may have this name
)

// Key names one object.
type Key struct {
	// Group is the API group, empty for core.
	Group string
	// Kind is the kind's name, such as "Pod".
	Kind string
	// Namespace is empty for kinds that have none.
	Namespace string
	// Name is the object's name.
	Name string
}

// String is the key's name in etcd: /xebec/registry/<group or "core">/<kind>/<namespace or
// "_">/<name>.
func (k Key) String() string { return kindPrefix(k.Group, k.Kind) + k.rest() }

// rest is what follows the kind's prefix: <namespace or "_">/<name>. Objects of one kind are
// ordered by it.
func (k Key) rest() string {
	ns := k.Namespace
	if ns == "" {
		ns = clusterSegment
	}
	return ns + "/" + k.Name
}

// valid reports whether String and ParseKey round-trip.
func (k Key) valid() bool {
	for _, s := range []string{k.Group, k.Kind, k.Namespace, k.Name} {
		if strings.Contains(s, "/") {
			return false
		}
	}
	return k.Group != coreSegment && k.Kind != "" && k.Namespace != clusterSegment && k.Name != ""
}

// ParseKey is the inverse of String. The key's parts share s's memory.
func ParseKey(s string) (Key, error) {
	rest, ok := strings.CutPrefix(s, RegistryPrefix)
	if !ok {
		return Key{}, fmt.Errorf("key %q is not under %s", s, RegistryPrefix)
	}
	var k Key
	group, rest, ok1 := strings.Cut(rest, "/")
	kind, rest, ok2 := strings.Cut(rest, "/")
	namespace, name, ok3 := strings.Cut(rest, "/")
	if !ok1 || !ok2 || !ok3 || group == "" || kind == "" || namespace == "" || name == "" || strings.Contains(name, "/") {
		return Key{}, fmt.Errorf("key %q is not %s<group>/<kind>/<namespace>/<name>", s, RegistryPrefix)
	}
	k.Kind, k.Name = kind, name
	if group != coreSegment {
		k.Group = group
	}
	if namespace != clusterSegment {
		k.Namespace = namespace
	}
	return k, nil
}

// kindPrefix is the prefix of the keys of all objects of a kind.
func kindPrefix(group, kind string) string {
	if group == "" {
		group = coreSegment
	}
	return RegistryPrefix + group + "/" + kind + "/"
}

// listPrefix is the prefix of the keys of a kind's objects in one namespace, or in all when it is
// empty.
func listPrefix(group, kind, namespace string) string {
	if namespace == "" {
		return kindPrefix(group, kind)
	}
	return kindPrefix(group, kind) + namespace + "/"
}
