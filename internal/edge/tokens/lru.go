package tokens

import "container/list"

// lru is a map that evicts the least recently used entry when it is full. It is not safe for
// concurrent use.
type lru[T any] struct {
	size     int
	elements map[sum]*list.Element
	order    list.List // of entry[T], most recently used first
}

type entry[T any] struct {
	sum   sum
	value T
}

func newLRU[T any](size int) *lru[T] {
	return &lru[T]{size: size, elements: make(map[sum]*list.Element)}
}

func (l *lru[T]) get(s sum) (T, bool) {
	element, ok := l.elements[s]
	if !ok {
		var zero T
		return zero, false
	}
	l.order.MoveToFront(element)
	return element.Value.(entry[T]).value, true
}

func (l *lru[T]) put(s sum, value T) {
	if element, ok := l.elements[s]; ok {
		element.Value = entry[T]{s, value}
		l.order.MoveToFront(element)
		return
	}
	l.elements[s] = l.order.PushFront(entry[T]{s, value})
	if l.order.Len() > l.size {
		delete(l.elements, l.order.Remove(l.order.Back()).(entry[T]).sum)
	}
}
