package collector

import (
	"maps"
	"slices"
	"sync"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// byOwner indexes objects by the uids of their owners.
const byOwner = "owner"

// graph holds the ownership of objects: the informers of all kinds, each with an index by owner.
type graph struct {
	client *client.Client
	kinds  *scheme.Scheme

	mu      sync.RWMutex
	members map[*scheme.Kind]*member
}

// member is one kind in the graph.
type member struct {
	informer   *client.Informer[scheme.Object]
	controller *controller.Controller
}

// dependent is an object that names another as its owner.
type dependent struct {
	kind   *scheme.Kind
	object scheme.Object
}

func newGraph(c *client.Client, kinds *scheme.Scheme) *graph {
	return &graph{client: c, kinds: kinds, members: map[*scheme.Kind]*member{}}
}

func (g *graph) add(k *scheme.Kind, i *client.Informer[scheme.Object], c *controller.Controller) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members[k] = &member{i, c}
}

func (g *graph) remove(k *scheme.Kind) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.members, k)
}

// member returns what the graph has of a kind, nil for nothing.
func (g *graph) member(k *scheme.Kind) *member {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.members[k]
}

// all returns the kinds in the graph.
func (g *graph) all() map[*scheme.Kind]*member {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return maps.Clone(g.members)
}

// synced reports whether the objects of all kinds are known. Those of a kind that was added a
// moment ago may not be.
func (g *graph) synced() bool {
	for _, m := range g.all() {
		if !m.informer.HasSynced() {
			return false
		}
	}
	return true
}

// get returns the object that an informer holds, if there is one.
func (g *graph) get(k *scheme.Kind, key controller.Key) (scheme.Object, bool) {
	m := g.member(k)
	if m == nil {
		return nil, false
	}
	return m.informer.Get(key.Namespace, key.Name)
}

// dependents returns the objects that name uid as an owner.
func (g *graph) dependents(uid string) []dependent {
	var found []dependent
	for k, m := range g.all() {
		for _, obj := range m.informer.ByIndex(byOwner, uid) {
			found = append(found, dependent{k, obj})
		}
	}
	return found
}

// enqueue adds an object to the queue of its kind.
func (g *graph) enqueue(k *scheme.Kind, key controller.Key) {
	if m := g.member(k); m != nil {
		m.controller.Enqueue(key)
	}
}

// changed enqueues the objects that a change of one object may concern: the object, its dependents
// if it was removed, and the owners that wait for it.
func (g *graph) changed(k *scheme.Kind, old, now scheme.Object) {
	if now != nil {
		m := now.GetMetadata()
		if len(m.GetOwnerReferences()) > 0 || m.GetDeletionTimestamp() != nil {
			g.enqueue(k, client.KeyOf(now))
		}
	}
	if old == nil {
		return
	}
	m := old.GetMetadata()
	if now == nil || now.GetMetadata().GetUid() != m.GetUid() {
		for _, d := range g.dependents(m.GetUid()) {
			g.enqueue(d.kind, client.KeyOf(d.object))
		}
	}
	for _, ref := range m.GetOwnerReferences() {
		owner, key, err := resolve(g.kinds, ref, m.GetNamespace())
		if err != nil {
			continue
		}
		if o, ok := g.get(owner, key); ok && o.GetMetadata().GetDeletionTimestamp() != nil {
			g.enqueue(owner, key)
		}
	}
}

// blocks reports whether an object blocks the foreground deletion of the owner with this uid.
func blocks(o scheme.Object, uid string) bool {
	return slices.ContainsFunc(o.GetMetadata().GetOwnerReferences(), func(r *metav1.OwnerReference) bool {
		return r.GetUid() == uid && r.GetBlockOwnerDeletion()
	})
}

// cyclic reports whether an object that waits for its dependents waits for itself: all that it
// waits for, directly or not, waits for it in turn, so that none of them would ever go. When
// something else is waited for as well, which can still go, the answer is no; its removal brings
// the owners that wait for it back here.
func (g *graph) cyclic(o scheme.Object) bool {
	start := o.GetMetadata().GetUid()
	awaited := map[string][]string{} // by the uid of an object, those that wait for it
	reached := map[string]bool{start: true}
	for todo := []string{start}; len(todo) > 0; {
		owner := todo[0]
		todo = todo[1:]
		for _, d := range g.dependents(owner) {
			if !blocks(d.object, owner) {
				continue
			}
			if !waits(d.object) {
				return false
			}
			uid := d.object.GetMetadata().GetUid()
			awaited[uid] = append(awaited[uid], owner)
			if !reached[uid] {
				reached[uid] = true
				todo = append(todo, uid)
			}
		}
	}
	// Those that wait for the object, directly or not, must be all that were reached.
	for todo := []string{start}; len(todo) > 0; {
		for _, owner := range awaited[todo[0]] {
			if reached[owner] {
				delete(reached, owner)
				todo = append(todo, owner)
			}
		}
		todo = todo[1:]
	}
	return len(reached) == 0
}

// waits reports whether an object is being deleted and waits for its dependents to go first.
func waits(o scheme.Object) bool {
	m := o.GetMetadata()
	return m.GetDeletionTimestamp() != nil && slices.Contains(m.GetFinalizers(), object.FinalizerForeground)
}
