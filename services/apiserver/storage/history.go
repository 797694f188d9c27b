package storage

import (
	"slices"
	"sort"
)

// history is the recent changes of one kind, oldest first, bounded in number and bytes. Watches
// resume from it.
type history struct {
	maxChanges, maxBytes int

	changes []*change
	bytes   int
	// floor is the revision after which no change is missing.
	floor int64
}

func (h *history) add(c *change) {
	h.changes = append(h.changes, c)
	h.bytes += c.size()
	drop := 0
	for len(h.changes)-drop > h.maxChanges || h.bytes > h.maxBytes && drop < len(h.changes) {
		h.bytes -= h.changes[drop].size()
		h.floor = h.changes[drop].revision
		h.changes[drop] = nil // the slice's memory goes on to hold later changes
		drop++
	}
	h.changes = h.changes[drop:]
}

// reset empties the history; it starts after revision.
func (h *history) reset(revision int64) {
	h.changes, h.bytes, h.floor = nil, 0, revision
}

// since returns the changes after revision, which must not be below the floor.
func (h *history) since(revision int64) []*change {
	i := sort.Search(len(h.changes), func(i int) bool { return h.changes[i].revision > revision })
	return slices.Clone(h.changes[i:])
}
