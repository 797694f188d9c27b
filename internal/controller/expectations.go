package controller

import (
	"strconv"
	"sync"
	"time"
)

// expectationsTimeout is how long expectations wait for the informer before the API is asked
// instead. It is Kubernetes' ExpectationsTimeout.
const expectationsTimeout = 5 * time.Minute

// expectations remember, for each owner, the dependents that were created or deleted and that the
// informer does not show yet. A reconcile that counted without them would create or delete as many
// again. Kubernetes' controllers keep counts; names and revisions cannot get out of step with
// events that the informer missed.
type expectations struct {
	mu     sync.Mutex
	owners map[Key]*pending
}

// pending are the writes of one owner.
type pending struct {
	uid        string // of the owner: one that was made again under the name starts without any
	dependents map[dependent]int64
	// uncertain says that a write failed in a way that leaves its outcome open.
	uncertain bool
	// since is the time of the last write.
	since time.Time
}

// dependent is an expected change of one object: it comes to its owner, or leaves it.
type dependent struct {
	key     Key
	created bool
}

func newExpectations() *expectations { return &expectations{owners: map[Key]*pending{}} }

// of returns the owner's writes, empty ones when it has none. The caller holds the lock.
func (e *expectations) of(owner Key, uid string) *pending {
	p := e.owners[owner]
	if p == nil || p.uid != uid {
		p = &pending{uid: uid, dependents: map[dependent]int64{}}
		e.owners[owner] = p
	}
	return p
}

// expect notes changes written at a revision.
func (e *expectations) expect(owner Key, uid, revision string, changes ...dependent) {
	if len(changes) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.of(owner, uid)
	p.since = time.Now()
	for _, c := range changes {
		p.dependents[c] = parseRevision(revision)
	}
}

// expectUncertain notes a write that may or may not have happened.
func (e *expectations) expectUncertain(owner Key, uid string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of(owner, uid).uncertain = true
}

// uncertain reports whether the API has to be asked for the owner's dependents: after a write of
// unknown outcome, and when the informer did not show a write for expectationsTimeout.
func (e *expectations) uncertain(owner Key, uid string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.owners[owner]
	if p == nil || p.uid != uid {
		return false
	}
	return p.uncertain || len(p.dependents) > 0 && time.Since(p.since) >= expectationsTimeout
}

// replace makes the changes all that the owner waits for, as of a revision.
func (e *expectations) replace(owner Key, uid, revision string, changes ...dependent) {
	e.forget(owner)
	e.expect(owner, uid, revision, changes...)
}

// forget drops the owner's expectations.
func (e *expectations) forget(owner Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.owners, owner)
}

// satisfied reports whether all writes of the owner have been observed: those for which observed
// is true, and those older than the revision that the informer has reached.
func (e *expectations) satisfied(owner Key, uid, revision string, observed func(dependent) bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.owners[owner]
	if p == nil {
		return true
	}
	if p.uid != uid {
		delete(e.owners, owner)
		return true
	}
	reached := parseRevision(revision)
	for d, written := range p.dependents {
		// At the revision itself, further changes of the same transaction may still be to come.
		if written < reached || observed(d) {
			delete(p.dependents, d)
		}
	}
	if len(p.dependents) > 0 || p.uncertain {
		return false
	}
	delete(e.owners, owner)
	return true
}

// parseRevision reads a resourceVersion; 0 for none.
func parseRevision(revision string) int64 {
	n, _ := strconv.ParseInt(revision, 10, 64)
	return n
}
