package client

import (
	"slices"
	"sync"

	"github.com/xebec-project/xebec/internal/scheme"
)

// Key names an object of a known kind. Namespace is empty for kinds that have none.
type Key struct{ Namespace, Name string }

// String returns "namespace/name", or the name alone when there is no namespace.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// KeyOf returns the key of an object.
func KeyOf(obj scheme.Object) Key {
	m := obj.GetMetadata()
	return Key{m.GetNamespace(), m.GetName()}
}

// store holds the objects of an informer with its indexes. Keys share their strings with the
// objects.
type store[T scheme.Object] struct {
	mu       sync.RWMutex
	objects  map[Key]T
	indexers map[string]func(T) []string
	indexes  map[string]map[string]map[Key]T // index name, index value
}

func newStore[T scheme.Object](indexers map[string]func(T) []string) *store[T] {
	s := &store[T]{objects: map[Key]T{}, indexers: indexers, indexes: map[string]map[string]map[Key]T{}}
	for name := range indexers {
		s.indexes[name] = map[string]map[Key]T{}
	}
	return s
}

func (s *store[T]) get(k Key) (T, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	obj, ok := s.objects[k]
	return obj, ok
}

func (s *store[T]) list() []T {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]T, 0, len(s.objects))
	for _, obj := range s.objects {
		all = append(all, obj)
	}
	return all
}

func (s *store[T]) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.objects)
}

func (s *store[T]) byIndex(name, value string) []T {
	s.mu.RLock()
	defer s.mu.RUnlock()
	set := s.indexes[name][value]
	if len(set) == 0 {
		return nil
	}
	found := make([]T, 0, len(set))
	for _, obj := range set {
		found = append(found, obj)
	}
	return found
}

// put stores obj and returns what it replaced.
func (s *store[T]) put(k Key, obj T) (old T, existed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, existed = s.objects[k]; existed {
		// Assigning to an existing map key keeps the old key, whose strings would pin the old object.
		delete(s.objects, k)
	}
	s.objects[k] = obj
	for name, values := range s.indexers {
		index := s.indexes[name]
		now := values(obj)
		if existed {
			s.unindex(index, k, values(old))
		}
		for _, v := range now {
			set := index[v]
			if set == nil {
				set = make(map[Key]T, 1)
				index[v] = set
			}
			set[k] = obj
		}
	}
	return old, existed
}

func (s *store[T]) remove(k Key) (old T, existed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, existed = s.objects[k]
	if !existed {
		return old, false
	}
	delete(s.objects, k)
	for name, values := range s.indexers {
		s.unindex(s.indexes[name], k, values(old))
	}
	return old, true
}

func (s *store[T]) unindex(index map[string]map[Key]T, k Key, values []string) {
	for _, v := range values {
		delete(index[v], k)
		if len(index[v]) == 0 {
			delete(index, v)
		}
	}
}

// keysExcept returns the stored keys that are not in keep.
func (s *store[T]) keysExcept(keep map[Key]struct{}) []Key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var gone []Key
	for k := range s.objects {
		if _, ok := keep[k]; !ok {
			gone = append(gone, k)
		}
	}
	slices.SortFunc(gone, compareKeys)
	return gone
}

func compareKeys(a, b Key) int {
	if a.Namespace != b.Namespace {
		if a.Namespace < b.Namespace {
			return -1
		}
		return 1
	}
	switch {
	case a.Name < b.Name:
		return -1
	case a.Name > b.Name:
		return 1
	}
	return 0
}
