// Package cache holds the nodes with the pods on them: those that are bound, as informers show
// them, and those whose binding is under way. It is what filters and scorers look at.
package cache

import (
	"fmt"
	"slices"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Cache holds nodes and pods. It is not safe for concurrent use. Its methods return the events that
// other pods may be waiting for.
type Cache struct {
	snapshot framework.Snapshot
	nodes    map[string]*framework.Node // those that exist, and those that pods are bound to
	pods     map[string]placed          // by uid
}

// placed is a pod on a node.
type placed struct {
	*framework.Pod
	node string
	// reserved says that the pod is not known to be bound yet.
	reserved bool
}

// New returns a cache of a cluster without nodes.
func New() *Cache {
	return &Cache{
		snapshot: framework.Snapshot{Resources: framework.NewResourceTable()},
		nodes:    map[string]*framework.Node{}, pods: map[string]placed{},
	}
}

// Snapshot returns the nodes as they are. It is valid until the cache changes.
func (c *Cache) Snapshot() *framework.Snapshot { return &c.snapshot }

// SetNode adds a node or changes it; its pods stay. The error names a quantity that does not parse.
func (c *Cache) SetNode(from *corev1.Node) (framework.Event, error) {
	name := from.GetMetadata().GetName()
	allocatable, err := c.allocatable(from)
	if err != nil {
		return framework.Event{}, fmt.Errorf("node %s: allocatable: %w", name, err)
	}
	n := c.node(name)
	event := framework.Event{Kind: n.Update(from, allocatable), Node: n}
	if at, found := c.snapshot.Find(name); !found {
		c.snapshot.Nodes = slices.Insert(c.snapshot.Nodes, at, n)
		event.Kind = framework.NodeAdded
	}
	return event, nil
}

// allocatable returns what a node offers, and gives an id to each resource that no node has offered
// before.
func (c *Cache) allocatable(n *corev1.Node) (framework.Resources, error) {
	amounts, err := framework.ReadAmounts(n.GetStatus().GetAllocatable())
	if err != nil {
		return nil, err
	}
	for name := range amounts {
		if _, known := c.snapshot.Resources.ID(name); !known {
			c.addResource(name)
		}
	}
	vector := make(framework.Resources, c.snapshot.Resources.Len())
	for name, amount := range amounts {
		id, _ := c.snapshot.Resources.ID(name)
		vector[id] = amount
	}
	return vector, nil
}

// addResource makes the vectors of all nodes longer, and counts what pods on them request of the
// new resource.
func (c *Cache) addResource(name string) {
	id := c.snapshot.Resources.Add(name)
	for _, n := range c.nodes {
		n.Allocatable, n.Used = append(n.Allocatable, 0), append(n.Used, 0)
	}
	for _, p := range c.pods {
		c.nodes[p.node].Used[id] += p.Request(name)
	}
}

// DeleteNode removes a node. What its pods take stays counted, in case the node returns before they
// are deleted.
func (c *Cache) DeleteNode(name string) {
	if at, found := c.snapshot.Find(name); found {
		c.snapshot.Nodes = slices.Delete(c.snapshot.Nodes, at, at+1)
		c.drop(name)
	}
}

// drop forgets a node that does not exist and has no pods.
func (c *Cache) drop(name string) {
	if _, exists := c.snapshot.Find(name); !exists && c.nodes[name].Used[framework.Pods] == 0 {
		delete(c.nodes, name)
	}
}

// node returns a node, which may not exist yet when a pod is bound to it.
func (c *Cache) node(name string) *framework.Node {
	n := c.nodes[name]
	if n == nil {
		n = framework.NewNode(name, c.snapshot.Resources)
		c.nodes[name] = n
	}
	return n
}

// SetPod counts a bound pod as it is now, in place of what was counted of it before: as it was, or
// as it was reserved.
func (c *Cache) SetPod(p *framework.Pod) framework.Event {
	was, known := c.pods[p.UID]
	c.remove(p.UID)
	c.add(placed{Pod: p, node: p.Node})
	switch {
	case !known:
		return framework.Event{}
	case was.node != p.Node:
		return c.Event(framework.PodRemoved, was.node)
	case !slices.Equal(was.HostPorts, p.HostPorts):
		return c.Event(framework.PodShrunk, p.Node)
	case slices.ContainsFunc(was.Requests, func(r framework.Request) bool { return p.Request(r.Name) < r.Amount }):
		return c.Event(framework.PodShrunk, p.Node)
	}
	return framework.Event{}
}

// DeletePod stops counting a pod. It does nothing for a pod that is not on a node.
func (c *Cache) DeletePod(uid string) framework.Event {
	p, ok := c.pods[uid]
	if !ok {
		return framework.Event{}
	}
	c.remove(uid)
	return c.Event(framework.PodRemoved, p.node)
}

// Reserve counts a pod on the node that was chosen for it. It implements framework.ReservePlugin.
func (c *Cache) Reserve(a framework.Assignment) error {
	if _, exists := c.snapshot.Find(a.Node); !exists {
		return fmt.Errorf("reserve node %s for pod %s/%s: the node does not exist", a.Node, a.Pod.Namespace, a.Pod.Name)
	}
	c.remove(a.Pod.UID)
	c.add(placed{Pod: a.Pod, node: a.Node, reserved: true})
	return nil
}

// Unreserve stops counting a pod that is not bound. It implements framework.ReservePlugin.
func (c *Cache) Unreserve(a framework.Assignment) {
	if c.Reserved(a) {
		c.remove(a.Pod.UID)
	}
}

// Reserved reports whether a pod is counted by Reserve: it is not known to be bound or deleted.
func (c *Cache) Reserved(a framework.Assignment) bool {
	p, ok := c.pods[a.Pod.UID]
	return ok && p.reserved && p.node == a.Node
}

// Event returns an event about a node, which may not exist.
func (c *Cache) Event(kind framework.EventKind, node string) framework.Event {
	return framework.Event{Kind: kind, Node: c.snapshot.Node(node)}
}

func (c *Cache) add(p placed) {
	c.pods[p.UID] = p
	c.node(p.node).AddPod(p.Pod, c.snapshot.Resources)
}

func (c *Cache) remove(uid string) {
	p, ok := c.pods[uid]
	if !ok {
		return
	}
	delete(c.pods, uid)
	c.nodes[p.node].RemovePod(p.Pod, c.snapshot.Resources)
	c.drop(p.node)
}
