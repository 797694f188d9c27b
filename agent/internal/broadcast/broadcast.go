// Package broadcast delivers values to any number of listeners, and keeps the last ones for
// listeners that come later.
package broadcast

import (
	"slices"
	"sync"
)

// capacity is how many values are kept for later listeners, and how many a listener may lag behind.
const capacity = 512

// Broadcaster delivers values of one type. The zero value is ready, and safe for concurrent use.
type Broadcaster[T any] struct {
	mu        sync.Mutex
	last      []T
	listeners map[chan T]bool
}

// Add delivers a value. It does not block: a listener that lags too far behind misses values.
func (b *Broadcaster[T]) Add(t T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.last) == capacity {
		b.last = append(b.last[:0], b.last[1:]...)
	}
	b.last = append(b.last, t)
	for l := range b.listeners {
		select {
		case l <- t:
		default:
		}
	}
}

// Listen returns the values that were kept, the oldest first, and a channel of further ones until
// stop is called.
func (b *Broadcaster[T]) Listen() (last []T, next <-chan T, stop func()) {
	c := make(chan T, capacity)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = make(map[chan T]bool)
	}
	b.listeners[c] = true
	return slices.Clone(b.last), c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, c)
	}
}
