// Package scheme is the registry of the kinds of object that a program knows: by group, version and
// kind, by resource, by message type and by the names that people type.
//
// A Scheme is a value that is passed to what needs one. Kinds can be added, replaced and removed
// while it is in use. Lookups take no lock; they read a snapshot that is replaced as a whole.
package scheme

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/version"
)

// GVK names one version of a kind. The core group is empty.
type GVK struct{ Group, Version, Kind string }

// GVR names one version of a resource, which is the plural of a kind. The core group is empty.
type GVR struct{ Group, Version, Resource string }

// String returns the form of messages: Pod of v1, Deployment of apps/v1.
func (g GVK) String() string { return g.Kind + " of " + APIVersion(g.Group, g.Version) }

// Scheme is a set of kinds. The zero Scheme is not usable; New makes one. It is safe for concurrent
// use.
type Scheme struct {
	// writing serializes changes.
	writing sync.Mutex
	current atomic.Pointer[snapshot]
}

// snapshot is the state of a scheme between two changes. Only changed ever changes: it is closed
// when the snapshot has been replaced.
type snapshot struct {
	generation uint64
	// all are all versions of all kinds in the order of compare, and stored those of them that are
	// stored.
	all, stored []*Kind
	kinds       map[GVK]*Kind
	resources   map[GVR]*Kind
	messages    map[protoreflect.FullName]*Kind
	// groupKinds and groupResources have the stored version of a kind, or the first of those that the
	// group serves.
	groupKinds, groupResources map[groupName]*Kind
	// names are by what people type, in lower case.
	names   map[string]*Kind
	changed chan struct{}
}

// groupName is a kind or a resource of a group in any version.
type groupName struct{ group, name string }

// New returns a scheme of some kinds. The error names the first kind that Replace would refuse.
func New(kinds ...*Kind) (*Scheme, error) {
	s := &Scheme{}
	s.current.Store(&snapshot{changed: make(chan struct{})})
	return s, s.Register(kinds...)
}

// Register adds kinds, all or none. See Replace.
func (s *Scheme) Register(kinds ...*Kind) error { return s.Replace(nil, kinds) }

// Unregister removes kinds, all or none. See Replace.
func (s *Scheme) Unregister(kinds ...*Kind) error { return s.Replace(kinds, nil) }

// Replace removes kinds and adds others in one step; users of the scheme see all of the change or
// none. It fails without a change when a kind to remove is not registered, when a kind to add is
// incomplete or has a name, resource or message type that another one has, and when a version that
// stays would convert to a stored version that is not registered.
func (s *Scheme) Replace(remove, add []*Kind) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	before := s.current.Load()
	all := slices.Clone(before.all)
	for _, k := range remove {
		i := slices.Index(all, k)
		if i < 0 {
			return fmt.Errorf("unregister %s: it is not registered", k.GVK())
		}
		all = slices.Delete(all, i, i+1)
	}
	for _, k := range add {
		if err := k.check(); err != nil {
			return fmt.Errorf("register %s: %w", k.GVK(), err)
		}
	}
	after, err := newSnapshot(append(all, add...))
	if err != nil {
		return err
	}
	after.generation = before.generation + 1
	s.current.Store(after)
	close(before.changed)
	return nil
}

// check returns what makes a kind unusable on its own.
func (k *Kind) check() error {
	missing := map[string]bool{
		"Version": k.Version == "", "Name": k.Name == "", "Plural": k.Plural == "", "Singular": k.Singular == "", "New": k.New == nil,
		"Rules": k.Rules == nil && k.Conversion == nil,
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		if missing[name] {
			return fmt.Errorf("%s is required", name)
		}
	}
	if c := k.Conversion; c != nil {
		switch {
		case c.Stored == nil || c.ToStored == nil || c.FromStored == nil:
			return errors.New("a conversion requires the stored kind and both functions")
		case c.Stored.Conversion != nil:
			return fmt.Errorf("%s, to which it converts, is not stored itself", c.Stored.GVK())
		case c.Stored.Namespaced != k.Namespaced:
			return fmt.Errorf("its scope must be that of %s, to which it converts", c.Stored.GVK())
		}
	}
	if k.Dynamic {
		return k.CheckMessage()
	}
	return nil
}

// CheckMessage returns what makes the message of a kind unusable: metadata is not its first field,
// or a selectable field or one of Scale is not in it. Replace calls it for dynamic kinds. Those
// that are compiled in are checked by tests, since it takes memory to read the descriptors of all
// kinds, of which most processes use a few.
func (k *Kind) CheckMessage() error {
	if f := k.New().ProtoReflect().Descriptor().Fields().ByNumber(1); f == nil || f.Name() != "metadata" {
		return errors.New("field 1 of the message must be metadata")
	}
	if err := k.checkScale(); err != nil {
		return err
	}
	_, err := k.fields()
	return err
}

func newSnapshot(all []*Kind) (*snapshot, error) {
	slices.SortStableFunc(all, compare)
	s := &snapshot{
		all: all, kinds: map[GVK]*Kind{}, resources: map[GVR]*Kind{}, messages: map[protoreflect.FullName]*Kind{},
		groupKinds: map[groupName]*Kind{}, groupResources: map[groupName]*Kind{}, names: map[string]*Kind{}, changed: make(chan struct{}),
	}
	for _, k := range all {
		if other := s.kinds[k.GVK()]; other != nil {
			return nil, fmt.Errorf("register %s: the kind is registered already", k.GVK())
		}
		if other := s.resources[k.GVR()]; other != nil {
			return nil, fmt.Errorf("register %s: %s has the plural %q too", k.GVK(), other.GVK(), k.Plural)
		}
		if other := s.messages[k.MessageName()]; other != nil {
			return nil, fmt.Errorf("register %s: %s has the message %s too", k.GVK(), other.GVK(), k.MessageName())
		}
		s.kinds[k.GVK()], s.resources[k.GVR()], s.messages[k.MessageName()] = k, k, k
		if k.Conversion == nil {
			s.stored = append(s.stored, k)
		}
		inGroup, plural := groupName{k.Group, k.Name}, groupName{k.Group, k.Plural}
		if s.groupKinds[inGroup] == nil || k.Conversion == nil {
			s.groupKinds[inGroup], s.groupResources[plural] = k, k
		}
	}
	for _, k := range all {
		if to := k.Stored(); s.kinds[to.GVK()] != to {
			return nil, fmt.Errorf("%s converts to %s, which is not registered", k.GVK(), to.GVK())
		}
	}
	return s, s.addNames()
}

// addNames fills in what people type. A name that several kinds have stands for the first of them,
// of a group too; two kinds of one group may not share a name.
func (s *snapshot) addNames() error {
	preferred := slices.Clone(s.all)
	slices.SortStableFunc(preferred, func(a, b *Kind) int {
		return cmp.Or(last(a.Dynamic, b.Dynamic), last(a.Conversion != nil, b.Conversion != nil))
	})
	for _, k := range preferred {
		for _, name := range append([]string{k.Plural, k.Singular, strings.ToLower(k.Name)}, k.ShortNames...) {
			typed := []string{name}
			// The core group is not written: only the bare name is typed for its kinds.
			if k.Group != "" {
				inGroup := name + "." + k.Group
				if other := s.names[inGroup]; other != nil && other.Name != k.Name {
					return fmt.Errorf("register %s: %s has the name %q too", k.GVK(), other.GVK(), name)
				}
				typed = append(typed, inGroup, name+"."+k.Version+"."+k.Group)
			} else if other := s.names[name]; other != nil && other.Group == "" && other.Name != k.Name {
				return fmt.Errorf("register %s: %s has the name %q too", k.GVK(), other.GVK(), name)
			}
			for _, t := range typed {
				if s.names[t] == nil {
					s.names[t] = k
				}
			}
		}
	}
	return nil
}

// compare orders kinds by group, core first, then by name, then by version, the stable and latest
// ones first.
func compare(a, b *Kind) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Name, b.Name), version.CompareKubeAwareVersionStrings(b.Version, a.Version))
}

// last orders false before true.
func last(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Generation returns a number that grows with each change.
func (s *Scheme) Generation() uint64 { return s.current.Load().generation }

// Watch returns the stored kinds, as Kinds does, and a channel that is closed at the next change. A
// user that follows the scheme calls Watch again then.
func (s *Scheme) Watch() (kinds []*Kind, changed <-chan struct{}) {
	now := s.current.Load()
	return slices.Clone(now.stored), now.changed
}
