// Package feed hands on what happens to whoever listens, and remembers the last of
// it for who asks later.
package feed

import (
	"slices"
	"sync"
)

// remembered is how many are kept for those who ask later, and how many a listener
// may be behind.
const remembered = 512

// Feed is of things of one kind. The zero Feed is ready, and safe for concurrent use.
type Feed[T any] struct {
	mu        sync.Mutex
	last      []T
	listeners map[chan T]bool
}

// Add hands one on. It does not wait: who does not keep up misses some.
func (f *Feed[T]) Add(t T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.last) == remembered {
		f.last = append(f.last[:0], f.last[1:]...)
	}
	f.last = append(f.last, t)
	for l := range f.listeners {
		select {
		case l <- t:
		default:
		}
	}
}

// Listen returns those remembered, the oldest first, and, until stop is called, a
// channel of those to come.
func (f *Feed[T]) Listen() (last []T, next <-chan T, stop func()) {
	c := make(chan T, remembered)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners == nil {
		f.listeners = make(map[chan T]bool)
	}
	f.listeners[c] = true
	return slices.Clone(f.last), c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, c)
	}
}
