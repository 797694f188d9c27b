package storage

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"k8s.io/utils/third_party/forked/golang/btree"

	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

const (
	treeDegree = 32
	// A paged list is served from its snapshot for so long, and so many of them per kind; then from
	// etcd.
	pagedLife = time.Minute
	pagedMost = 4
)

// cache holds the objects of all kinds as they are at one revision. One goroutine, the reflector,
// writes to it; a batch of changes becomes visible as a whole.
type cache struct {
	kinds atomic.Pointer[kindSet] // replaced by the reflector alone

	mu       sync.RWMutex
	revision int64 // the cache holds the state at this revision; 0 before it is filled

	// sent is the revision up to which all changes have reached the watchers' buffers.
	sent atomic.Int64

	waitMu  sync.Mutex
	waiters map[*revisionWaiter]struct{}
}

type groupKind struct{ group, kind string }

// kindCache holds the objects of one kind. Its fields but the first are guarded by cache.mu, except
// where said.
type kindCache struct {
	typeURL string

	byName  map[nsName]*Object
	ordered *btree.BTree[*Object]
	history history

	snapMu sync.Mutex // taken after cache.mu
	snap   *btree.BTree[*Object]
	paged  []pagedSnapshot

	watchMu  sync.Mutex // taken after cache.mu
	watchers watchers
	ended    error // why watches of the kind are over; nil while it is held
}

type nsName struct{ namespace, name string }

// pagedSnapshot is a snapshot kept for the further pages of a list.
type pagedSnapshot struct {
	revision int64
	tree     *btree.BTree[*Object]
	expires  time.Time
}

func newCache(cfg Config, kinds []*scheme.Kind) *cache {
	caches := make(map[groupKind]*kindCache, len(kinds))
	for _, k := range kinds {
		caches[groupKind{k.Group, k.Name}] = newKindCache(cfg, k)
	}
	c := &cache{waiters: make(map[*revisionWaiter]struct{})}
	c.kinds.Store(newKindSet(caches))
	return c
}

func newKindCache(cfg Config, k *scheme.Kind) *kindCache {
	return &kindCache{
		typeURL:  k.TypeURL(),
		byName:   make(map[nsName]*Object),
		ordered:  newTree(),
		history:  history{maxChanges: cfg.HistoryChanges, maxBytes: cfg.HistoryBytes},
		watchers: newWatchers(),
	}
}

func newTree() *btree.BTree[*Object] {
	return btree.New(treeDegree, func(a, b *Object) bool { return compareKeys(a.Key, b.Key) < 0 })
}

// compareKeys orders keys of one kind as etcd orders their names, which is not the order of
// (namespace, name): "a-b/x" stands before "a/x". Pages of one list may come from the cache and
// from etcd, so the order must be the same.
func compareKeys(a, b Key) int {
	na, nb := a.Namespace, b.Namespace
	if na == nb {
		return strings.Compare(a.Name, b.Name)
	}
	if na == "" {
		na = clusterSegment
	}
	if nb == "" {
		nb = clusterSegment
	}
	switch {
	case len(na) < len(nb) && nb[:len(na)] == na:
		return cmp.Compare('/', nb[len(na)])
	case len(nb) < len(na) && na[:len(nb)] == nb:
		return cmp.Compare(na[len(nb)], '/')
	}
	return strings.Compare(na, nb)
}

// kind returns the cache of a kind.
func (c *cache) kind(group, name string) (*kindCache, error) {
	if k, ok := c.kinds.Load().caches[groupKind{group, name}]; ok {
		return k, nil
	}
	return nil, unknownKind(group, name)
}

// object turns etcd's record of a key of this kind into an object.
func (k *kindCache) object(key Key, kv *mvccpb.KeyValue) *Object {
	return newObject(k.typeURL, key, kv.Value, kv.ModRevision, kv.CreateRevision, kv.Lease, apiv1.EventType_EVENT_TYPE_MODIFIED)
}

func (c *cache) get(key Key) (*Object, bool) {
	k, ok := c.kinds.Load().caches[groupKind{key.Group, key.Kind}]
	if !ok {
		return nil, false
	}
	c.mu.RLock()
	o, ok := k.byName[nsName{key.Namespace, key.Name}]
	c.mu.RUnlock()
	return o, ok
}

func (c *cache) count(group, kind string) int {
	k, ok := c.kinds.Load().caches[groupKind{group, kind}]
	if !ok {
		return 0
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(k.byName)
}

// snapshot returns the objects of a kind and their revision, 0 when the cache has not been filled.
// The tree must not be written to.
func (c *cache) snapshot(k *kindCache) (*btree.BTree[*Object], int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return k.snapshot(), c.revision
}

// snapshot must be called with cache.mu held, for reading at least.
func (k *kindCache) snapshot() *btree.BTree[*Object] {
	k.snapMu.Lock()
	defer k.snapMu.Unlock()
	if k.snap == nil {
		// Cheap: the trees share their nodes until either is written to.
		k.snap = k.ordered.Clone()
	}
	return k.snap
}

// keepPaged keeps a snapshot for the next pages of a list.
func (c *cache) keepPaged(k *kindCache, tree *btree.BTree[*Object], revision int64) {
	k.snapMu.Lock()
	defer k.snapMu.Unlock()
	now := time.Now()
	kept := k.paged[:0]
	for _, p := range k.paged {
		if p.revision != revision && now.Before(p.expires) {
			kept = append(kept, p)
		}
	}
	if len(kept) == pagedMost {
		kept = append(kept[:0], kept[1:]...)
	}
	clear(k.paged[len(kept):])
	k.paged = append(kept, pagedSnapshot{revision: revision, tree: tree, expires: now.Add(pagedLife)})
}

// paged returns the snapshot of a kind at a revision if it has been kept.
func (c *cache) paged(k *kindCache, revision int64) (*btree.BTree[*Object], bool) {
	k.snapMu.Lock()
	defer k.snapMu.Unlock()
	for _, p := range k.paged {
		if p.revision == revision {
			return p.tree, true
		}
	}
	return nil, false
}

// dropPaged forgets the snapshots whose time is over, so that a list that is never finished does
// not retain old objects.
func (c *cache) dropPaged(now time.Time) {
	for _, k := range c.kinds.Load().caches {
		k.snapMu.Lock()
		kept := k.paged[:0]
		for _, p := range k.paged {
			if now.Before(p.expires) {
				kept = append(kept, p)
			}
		}
		clear(k.paged[len(kept):])
		k.paged = kept
		k.snapMu.Unlock()
	}
}

// update is one change as the reflector receives it.
type update struct {
	kind   *kindCache
	key    Key
	object *Object // nil: deleted
	at     int64   // revision of the change
}

// apply makes a batch of updates visible, in order, and then hands them to the watchers. revision
// is the one that the cache has reached with them. Only the reflector calls it.
func (c *cache) apply(updates []update, revision int64) {
	type delivery struct {
		kind   *kindCache
		change *change
	}
	deliveries := make([]delivery, 0, len(updates))

	c.mu.Lock()
	for _, u := range updates {
		if u.at <= c.revision {
			continue // seen before a reconnect
		}
		if ch := u.kind.put(u); ch != nil {
			u.kind.history.add(ch)
			deliveries = append(deliveries, delivery{u.kind, ch})
		}
	}
	c.revision = max(c.revision, revision)
	c.mu.Unlock()

	for _, d := range deliveries {
		d.kind.deliver(d.change)
	}
	c.sent.Store(max(c.sent.Load(), revision))
	c.wake(revision)
}

// put must be called with cache.mu held. It returns nil when nothing changed.
func (k *kindCache) put(u update) *change {
	name := nsName{u.key.Namespace, u.key.Name}
	previous := k.byName[name]
	if u.object == nil {
		if previous == nil {
			return nil
		}
		k.ordered.Delete(previous)
		delete(k.byName, name)
	} else {
		k.ordered.ReplaceOrInsert(u.object)
		k.byName[name] = u.object
	}
	k.snapMu.Lock()
	k.snap = nil
	k.snapMu.Unlock()
	return &change{revision: u.at, object: u.object, previous: previous}
}

// replace makes the cache hold exactly the given objects, which are the whole state at a revision,
// and sends the watchers the difference. The history restarts empty, since the changes in between
// are not known. Only the reflector calls it.
func (c *cache) replace(objects map[*kindCache][]*Object, revision int64) {
	deliveries := make(map[*kindCache][]*change)
	c.mu.Lock()
	for _, k := range c.kinds.Load().caches {
		deliveries[k] = k.replace(objects[k], revision)
		k.history.reset(revision)
	}
	c.revision = revision
	c.mu.Unlock()

	for k, changes := range deliveries {
		for _, ch := range changes {
			k.deliver(ch)
		}
	}
	c.sent.Store(revision)
	c.wake(revision)
}

// replace must be called with cache.mu held. It returns the difference, in the order of its
// revisions.
func (k *kindCache) replace(objects []*Object, revision int64) []*change {
	var changes []*change
	byName := make(map[nsName]*Object, len(objects))
	ordered := newTree()
	for _, o := range objects {
		name := nsName{o.Key.Namespace, o.Key.Name}
		previous := k.byName[name]
		switch {
		case previous == nil:
			changes = append(changes, &change{revision: o.Revision, object: o})
		case previous.Revision == o.Revision:
			o = previous // with what has been decoded of it
		case previous.CreateRevision != o.CreateRevision:
			// Deleted at an unknown time and created again: watchers must see two objects.
			changes = append(changes,
				&change{revision: o.CreateRevision - 1, previous: previous},
				&change{revision: o.Revision, object: o})
		default:
			changes = append(changes, &change{revision: o.Revision, object: o, previous: previous})
		}
		byName[name] = o
		ordered.ReplaceOrInsert(o)
	}
	for name, previous := range k.byName {
		if _, ok := byName[name]; !ok {
			changes = append(changes, &change{revision: revision, previous: previous})
		}
	}
	k.byName, k.ordered = byName, ordered
	k.snapMu.Lock()
	k.snap = nil
	k.snapMu.Unlock()
	slices.SortStableFunc(changes, func(a, b *change) int { return cmp.Compare(a.revision, b.revision) })
	return changes
}

// revisionWaiter waits for the cache to reach a revision.
type revisionWaiter struct {
	revision int64
	reached  chan struct{}
}

// await returns a waiter whose channel is closed when the cache has reached revision, nil when it
// has already. The caller must forget the waiter.
func (c *cache) await(revision int64) *revisionWaiter {
	c.waitMu.Lock()
	defer c.waitMu.Unlock()
	// The revision is read under waitMu, which wake takes after it was raised: no wake-up is lost.
	if c.at() >= revision {
		return nil
	}
	w := &revisionWaiter{revision: revision, reached: make(chan struct{})}
	c.waiters[w] = struct{}{}
	return w
}

func (c *cache) forget(w *revisionWaiter) {
	c.waitMu.Lock()
	delete(c.waiters, w)
	c.waitMu.Unlock()
}

// awaited reports whether a read waits for a later revision.
func (c *cache) awaited() bool {
	c.waitMu.Lock()
	defer c.waitMu.Unlock()
	return len(c.waiters) > 0
}

func (c *cache) wake(revision int64) {
	c.waitMu.Lock()
	defer c.waitMu.Unlock()
	for w := range c.waiters {
		if w.revision <= revision {
			close(w.reached)
			delete(c.waiters, w)
		}
	}
}

// at returns the revision that the cache has reached.
func (c *cache) at() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.revision
}
