package agent

import (
	"iter"
	"sync"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
)

// resumed continues from known objects with the events of an informer: an object that the informer
// reports as new may be a change, and one that it does not report was deleted.
type resumed[T scheme.Object] struct {
	on func(old, now T)

	mu   sync.Mutex
	kept map[client.Key]T
}

// newResumed calls on for each object. Then it takes the informer's events, and passes them to on
// one after the other.
func newResumed[T scheme.Object](objects iter.Seq[T], on func(old, now T)) *resumed[T] {
	s := &resumed[T]{on: on, kept: map[client.Key]T{}}
	var none T
	for o := range objects {
		s.kept[keyOf(o)] = o
		on(none, o)
	}
	return s
}

// onChange takes an informer's event.
func (s *resumed[T]) onChange(old, now T) {
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
func (s *resumed[T]) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var none T
	for _, o := range s.kept {
		s.on(o, none)
	}
	clear(s.kept)
}

func keyOf(o scheme.Object) client.Key {
	return client.Key{Namespace: o.GetMetadata().GetNamespace(), Name: o.GetMetadata().GetName()}
}

// ofKind yields the objects that are of one kind.
func ofKind[T scheme.Object](objects []scheme.Object) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, o := range objects {
			if t, ok := o.(T); ok && !yield(t) {
				return
			}
		}
	}
}

// slim drops managed fields, which no agent reads and which are the larger part of a small object.
func slim[T scheme.Object](o T) { o.GetMetadata().ManagedFields = nil }

// progress passes revisions on once it is opened: before, differences to the snapshot are not
// applied.
type progress struct {
	to func(revision int64)

	mu     sync.Mutex
	opened bool
	latest int64
}

func (p *progress) report(revision int64) {
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
