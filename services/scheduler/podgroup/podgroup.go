// Package podgroup knows which pods belong to which PodGroup, and places gangs: groups whose pods
// get nodes together or not at all.
package podgroup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Name is what a pod that waits for the others of its gang was refused by. No event wakes it: the
// pods that did not fit wake the gang.
const Name = "GangScheduling"

// Key names a group.
type Key struct {
	// Namespace and Name are those of the PodGroup.
	Namespace, Name string
}

// Group is a PodGroup with its pods. Either can be there without the other.
type Group struct {
	Key
	// Binding says that pods of the gang are being bound, so that no others are placed.
	Binding bool

	exists   bool
	minCount int                       // 0 without a gang
	waiting  map[string]*framework.Pod // without a node, by uid
	placed   map[string]bool           // uids of those that are bound
}

// Groups holds the groups. It is not safe for concurrent use.
type Groups struct {
	groups map[Key]*Group
	pods   map[string]*Group // by uid
}

// New returns no groups.
func New() *Groups { return &Groups{groups: map[Key]*Group{}, pods: map[string]*Group{}} }

// Of returns the group that a pod names, nil when it names none.
func (gs *Groups) Of(p *framework.Pod) *Group {
	if p.PodGroup == "" {
		return nil
	}
	return gs.group(Key{p.Namespace, p.PodGroup})
}

func (gs *Groups) group(k Key) *Group {
	g := gs.groups[k]
	if g == nil {
		g = &Group{Key: k, waiting: map[string]*framework.Pod{}, placed: map[string]bool{}}
		gs.groups[k] = g
	}
	return g
}

// Set notes a PodGroup, and returns its group.
func (gs *Groups) Set(from *schedulingv1alpha2.PodGroup) *Group {
	g := gs.group(Key{from.GetMetadata().GetNamespace(), from.GetMetadata().GetName()})
	g.exists, g.minCount = true, int(from.GetSpec().GetSchedulingPolicy().GetGang().GetMinCount())
	return g
}

// Delete notes that a PodGroup was deleted, and returns what is left of its group.
func (gs *Groups) Delete(namespace, name string) *Group {
	g := gs.group(Key{namespace, name})
	g.exists, g.minCount = false, 0
	gs.drop(g)
	return g
}

// SetPod notes a pod that is bound or may be placed. It returns the pod's group, nil for none.
func (gs *Groups) SetPod(p *framework.Pod) *Group {
	g := gs.Of(p)
	if g == nil {
		return nil
	}
	gs.pods[p.UID] = g
	if p.Node == "" {
		g.waiting[p.UID] = p
		return g
	}
	delete(g.waiting, p.UID)
	g.placed[p.UID] = true
	return g
}

// DeletePod notes that a pod was deleted, has finished or cannot be placed. It returns the group
// that had it, nil for none.
func (gs *Groups) DeletePod(uid string) *Group {
	g := gs.pods[uid]
	if g == nil {
		return nil
	}
	delete(gs.pods, uid)
	delete(g.waiting, uid)
	delete(g.placed, uid)
	gs.drop(g)
	return g
}

// drop forgets a group of which nothing is left.
func (gs *Groups) drop(g *Group) {
	if !g.exists && len(g.waiting)+len(g.placed) == 0 {
		delete(gs.groups, g.Key)
	}
}

// Ready reports whether pods of the group may be placed: the PodGroup exists, and so do as many
// pods as a gang needs.
func (g *Group) Ready() bool { return g.exists && len(g.waiting)+len(g.placed) >= g.minCount }

// Need returns how many pods have to be placed together before any is; 0 when pods are placed one
// by one, because the group is no gang or has its nodes.
func (g *Group) Need() int { return max(g.minCount-len(g.placed), 0) }

// Waiting returns the pods without a node in the order in which they are placed: by priority, then
// by name.
func (g *Group) Waiting() []*framework.Pod {
	all := make([]*framework.Pod, 0, len(g.waiting))
	for _, p := range g.waiting {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *framework.Pod) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), strings.Compare(a.Name, b.Name), strings.Compare(a.UID, b.UID))
	})
	return all
}

// WaitsFor says what a group that is not ready waits for.
func (g *Group) WaitsFor() string {
	if !g.exists {
		return fmt.Sprintf("its pod group %s/%s, which does not exist", g.Namespace, g.Name)
	}
	return fmt.Sprintf("other pods of its gang %s/%s: %d of %d exist", g.Namespace, g.Name, len(g.waiting)+len(g.placed), g.minCount)
}
