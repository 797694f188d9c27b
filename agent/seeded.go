package agent

import (
	"iter"
	"sync"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
)

// seeded lets an informer go on from objects that were known before it: what it then reports as new
// may be a change, and what it never reports is gone.
type seeded[T kind.Object] struct {
	on func(old, now T)

	mu   sync.Mutex
	kept map[client.Key]T
}

// newSeeded tells on of each object. Then it takes the informer's events, and passes them to on one
// after the other.
func newSeeded[T kind.Object](objects iter.Seq[T], on func(old, now T)) *seeded[T] {
	s := &seeded[T]{on: on, kept: map[client.Key]T{}}
	var none T
	for o := range objects {
		s.kept[keyOf(o)] = o
		on(none, o)
	}
	return s
}

// onChange takes an informer's event.
func (s *seeded[T]) onChange(old, now T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var none T
	if any(old) == any(none) {
		if o, ok := s.kept[keyOf(now)]; ok {
			if o.GetMetadata().GetUid() == now.GetMetadata().GetUid() {
				old = o
			} else {
				s.on(o, none) // replaced under its name while no agent watched
			}
		}
	}
	if any(now) == any(none) {
		delete(s.kept, keyOf(old))
	} else {
		delete(s.kept, keyOf(now))
	}
	s.on(old, now)
}

// forget removes what the informer, which has synced by now, does not know.
func (s *seeded[T]) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var none T
	for _, o := range s.kept {
		s.on(o, none)
	}
	clear(s.kept)
}

func keyOf(o kind.Object) client.Key {
	return client.Key{Namespace: o.GetMetadata().GetNamespace(), Name: o.GetMetadata().GetName()}
}

// ofKind yields the objects that are of one kind.
func ofKind[T kind.Object](objects []kind.Object) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, o := range objects {
			if t, ok := o.(T); ok && !yield(t) {
				return
			}
		}
	}
}

// slim drops what no agent reads and what is the larger part of a small object.
func slim[T kind.Object](o T) { o.GetMetadata().ManagedFields = nil }

// progress passes revisions on from when it is opened: what the kept objects were mistaken in is
// not mended before.
type progress struct {
	to func(revision int64)

	mu     sync.Mutex
	opened bool
	latest int64
}

func (p *progress) tell(revision int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latest = revision
	if p.opened {
		p.to(revision)
	}
}

func (p *progress) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened = true
	if p.latest > 0 {
		p.to(p.latest)
	}
}
