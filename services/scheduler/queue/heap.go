package queue

import (
	"cmp"
	"container/heap"
)

// comesFirst orders ready pods: by priority, the highest first, then by how long they wait.
func comesFirst(a, b *Pod) bool {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.since.Compare(b.since), cmp.Compare(a.Name, b.Name)) < 0
}

// pods is a heap of pods, each of which knows its place.
type pods struct {
	pods []*Pod
	less func(a, b *Pod) bool
}

func (h *pods) push(w *Pod) {
	w.place = h
	heap.Push(h, w)
}

// leave takes a pod out of the heap that it is in, if any.
func (w *Pod) leave() {
	if w.place != nil {
		heap.Remove(w.place, w.index)
		w.place = nil
	}
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (h *pods) Len() int { return len(h.pods) }

// Less reports whether i comes out before j.
func (h *pods) Less(i, j int) bool { return h.less(h.pods[i], h.pods[j]) }

// Swap exchanges two.
func (h *pods) Swap(i, j int) {
	h.pods[i], h.pods[j] = h.pods[j], h.pods[i]
	h.pods[i].index, h.pods[j].index = i, j
}

// Push appends.
func (h *pods) Push(x any) {
	w := x.(*Pod)
	w.index = len(h.pods)
	h.pods = append(h.pods, w)
}

// Pop removes the last.
func (h *pods) Pop() any {
	last := len(h.pods) - 1
	w := h.pods[last]
	h.pods[last] = nil
	h.pods = h.pods[:last]
	return w
}
