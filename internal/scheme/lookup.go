package scheme

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kinds returns every kind in the version that is stored, by group and then by name, core first.
func (s *Scheme) Kinds() []*Kind { return slices.Clone(s.current.Load().stored) }

// Served returns every version of every kind, by group, name and version; of versions, the stable
// and latest ones first.
func (s *Scheme) Served() []*Kind { return slices.Clone(s.current.Load().all) }

// ByName finds a kind by what people type: the plural, the singular, a short name or the kind
// itself, in any case, and qualified by the group, or by version and group, where there is one
// (deployments.apps, deployments.v1.apps). Where several kinds have a name, those compiled in come
// before dynamic ones, stored versions before others, and groups by name.
func (s *Scheme) ByName(typed string) (*Kind, bool) {
	k, ok := s.current.Load().names[strings.ToLower(typed)]
	return k, ok
}

// ByCategory returns the kinds of a category, in any case, in the order of Kinds.
func (s *Scheme) ByCategory(typed string) []*Kind {
	return slices.DeleteFunc(s.Kinds(), func(k *Kind) bool { return !slices.Contains(k.Categories, strings.ToLower(typed)) })
}

// ByGVK finds a kind by group, version and kind.
func (s *Scheme) ByGVK(gvk GVK) (*Kind, bool) {
	k, ok := s.current.Load().kinds[gvk]
	return k, ok
}

// ByGVR finds a kind by group, version and plural.
func (s *Scheme) ByGVR(gvr GVR) (*Kind, bool) {
	k, ok := s.current.Load().resources[gvr]
	return k, ok
}

// ByAPIVersionKind finds a kind by the apiVersion and kind of a manifest, both exactly as written
// there.
func (s *Scheme) ByAPIVersionKind(apiVersion, name string) (*Kind, bool) {
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group, version = "", apiVersion
	} else if group == "" {
		return nil, false
	}
	return s.ByGVK(GVK{group, version, name})
}

// ByGroupKind finds a kind by its group, empty for core, and its name as manifests write it. Of
// several versions it returns the one that is stored, or the first of Served if none of this group
// is.
func (s *Scheme) ByGroupKind(group, name string) (*Kind, bool) {
	k, ok := s.current.Load().groupKinds[groupName{group, name}]
	return k, ok
}

// ByResource finds a kind by its group, empty for core, and its plural. It chooses among versions
// as ByGroupKind does.
func (s *Scheme) ByResource(group, plural string) (*Kind, bool) {
	k, ok := s.current.Load().groupResources[groupName{group, plural}]
	return k, ok
}

// ByMessage finds a kind by the full name of its message.
func (s *Scheme) ByMessage(name protoreflect.FullName) (*Kind, bool) {
	k, ok := s.current.Load().messages[name]
	return k, ok
}

// ByTypeURL finds a kind by the type URL of a google.protobuf.Any; what stands before the last
// slash does not count.
func (s *Scheme) ByTypeURL(url string) (*Kind, bool) {
	return s.ByMessage(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
}

// Of finds the kind of an object. The error names the message of an object whose kind is not
// registered, or no longer.
func (s *Scheme) Of(o Object) (*Kind, error) {
	name := o.ProtoReflect().Descriptor().FullName()
	k, ok := s.ByMessage(name)
	if !ok {
		return nil, fmt.Errorf("no kind is registered for message %s", name)
	}
	return k, nil
}
