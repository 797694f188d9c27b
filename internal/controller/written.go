package controller

import (
	"sync"
	"time"
)

// WrittenPause is how long a reconcile waits at most for an informer that lacks its last write. The
// change that the informer lacks brings the key back sooner, but for one that comes with a new
// list.
const WrittenPause = 100 * time.Millisecond

// Written remembers the revision of the last write for each key of a controller. A reconcile that
// planned by an informer that lacks the write would write the same again: while IsBehind returns
// true it returns Result{RequeueAfter: WrittenPause}. The zero value is ready for use, by several
// goroutines.
type Written struct {
	mu        sync.Mutex
	revisions map[Key]int64
}

// Note notes a write for a key at a revision.
func (w *Written) Note(key Key, revision string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.revisions == nil {
		w.revisions = map[Key]int64{}
	}
	w.revisions[key] = max(w.revisions[key], parseRevision(revision))
}

// IsBehind reports whether an informer at a revision lacks the last write for a key, and forgets a
// write that it has.
func (w *Written) IsBehind(key Key, revision string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	want, ok := w.revisions[key]
	if !ok {
		return false
	}
	if parseRevision(revision) < want {
		return true
	}
	delete(w.revisions, key)
	return false
}
