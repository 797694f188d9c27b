package collector

import (
	"slices"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kind"
)

// byOwner indexes objects by the uids of their owners.
const byOwner = "owner"

// graph is who owns what: the informers of all kinds, each with an index by owner.
type graph struct {
	client  *client.Client
	members map[*kind.Kind]*member
}

// member is one kind in the graph.
type member struct {
	informer   *client.Informer[kind.Object]
	controller *controller.Controller
}

// dependent is an object that names another as its owner.
type dependent struct {
	kind   *kind.Kind
	object kind.Object
}

func newGraph(c *client.Client) *graph {
	return &graph{client: c, members: map[*kind.Kind]*member{}}
}

func (g *graph) add(k *kind.Kind, i *client.Informer[kind.Object], c *controller.Controller) {
	g.members[k] = &member{i, c}
}

// get returns the mirrored object, if there is one.
func (g *graph) get(k *kind.Kind, key controller.Key) (kind.Object, bool) {
	m := g.members[k]
	if m == nil {
		return nil, false
	}
	return m.informer.Get(key.Namespace, key.Name)
}

// dependents returns the objects that name uid as an owner.
func (g *graph) dependents(uid string) []dependent {
	var found []dependent
	for k, m := range g.members {
		for _, obj := range m.informer.ByIndex(byOwner, uid) {
			found = append(found, dependent{k, obj})
		}
	}
	return found
}

// enqueue has an object looked at.
func (g *graph) enqueue(k *kind.Kind, key controller.Key) {
	if m := g.members[k]; m != nil {
		m.controller.Enqueue(key)
	}
}

// changed has looked at what a change of one object may concern: itself, the dependents it leaves behind, and the
// owners that wait for it.
func (g *graph) changed(k *kind.Kind, old, now kind.Object) {
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
		owner, key, err := resolve(ref, m.GetNamespace())
		if err != nil {
			continue
		}
		if o, ok := g.get(owner, key); ok && o.GetMetadata().GetDeletionTimestamp() != nil {
			g.enqueue(owner, key)
		}
	}
}

// waits reports whether an object is being deleted and waits for its dependents to go first.
func waits(o kind.Object) bool {
	m := o.GetMetadata()
	return m.GetDeletionTimestamp() != nil && slices.Contains(m.GetFinalizers(), kind.FinalizerForeground)
}
