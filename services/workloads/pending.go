package workloads

import (
	"strconv"
	"sync"

	"github.com/xebec-project/xebec/internal/controller"
)

// pending remembers, for each set, the pods written that the informer has not shown yet: deciding without them would make
// or delete as many again. It does the work of what Kubernetes calls expectations, with names and revisions in place of
// counts and timeouts.
type pending struct {
	mu   sync.Mutex
	sets map[controller.Key]*writes
}

// writes are what a set waits to see.
type writes struct {
	pods map[controller.Key]expectation
	// unclear says that a write was sent whose outcome nobody told.
	unclear bool
}

// expectation is a change of one pod.
type expectation struct {
	created bool
	// revision is that of the write. What came later is known to include it.
	revision int64
}

func newPending() *pending { return &pending{sets: map[controller.Key]*writes{}} }

func (p *pending) of(set controller.Key) *writes {
	w := p.sets[set]
	if w == nil {
		w = &writes{pods: map[controller.Key]expectation{}}
		p.sets[set] = w
	}
	return w
}

// created notes pods that were made, or came to the set, at a revision.
func (p *pending) created(set controller.Key, revision string, pods ...controller.Key) {
	p.add(set, revision, true, pods)
}

// deleted notes pods that were deleted, or left the set, at a revision.
func (p *pending) deleted(set controller.Key, revision string, pods ...controller.Key) {
	p.add(set, revision, false, pods)
}

func (p *pending) add(set controller.Key, revision string, created bool, pods []controller.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pod := range pods {
		p.of(set).pods[pod] = expectation{created, number(revision)}
	}
}

// doubt notes that a write of the set may or may not have happened.
func (p *pending) doubt(set controller.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(set).unclear = true
}

// unclear reports whether a write of the set is in doubt.
func (p *pending) unclear(set controller.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sets[set] != nil && p.sets[set].unclear
}

// cleared ends the doubt.
func (p *pending) cleared(set controller.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(set).unclear = false
}

func (p *pending) forget(set controller.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sets, set)
}

// settled reports whether all writes of a set have been seen, and forgets those that have: those that seen finds, and
// those made before the revision that the informer has.
func (p *pending) settled(set controller.Key, revision string, seen func(pod controller.Key, created bool) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.sets[set]
	if w == nil {
		return true
	}
	shown := number(revision)
	for pod, e := range w.pods {
		// At the very revision, others of the same transaction may still be to come.
		if e.revision < shown || seen(pod, e.created) {
			delete(w.pods, pod)
		}
	}
	if len(w.pods) > 0 || w.unclear {
		return false
	}
	delete(p.sets, set)
	return true
}

// number reads a resourceVersion; 0 for none.
func number(revision string) int64 {
	n, _ := strconv.ParseInt(revision, 10, 64)
	return n
}
