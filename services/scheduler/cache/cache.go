// Package cache holds the nodes with the pods on them: those that are bound, as informers show
// them, and those whose binding is under way. It is what filters and scorers look at.
package cache

import (
	"fmt"
	"maps"
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
		snapshot: framework.NewSnapshot(),
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
	was := n.Labels
	return framework.Event{Kind: c.snapshot.UpdateNode(n, from, allocatable), Node: n, WasLabels: was}, nil
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
func (c *Cache) DeleteNode(name string) framework.Event {
	n := c.snapshot.Node(name)
	if n == nil {
		return framework.Event{}
	}
	c.snapshot.DeleteNode(n)
	c.drop(name)
	return framework.Event{Kind: framework.NodeDeleted, WasLabels: n.Labels}
}

// drop forgets a node that does not exist and has no pods.
func (c *Cache) drop(name string) {
	if _, exists := c.snapshot.Find(name); !exists && c.nodes[name].Used[framework.Pods] == 0 && len(c.nodes[name].Nominated) == 0 {
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
	c.EndNomination(p.UID)
	if p.Deleting {
		c.snapshot.SetPreempted(p.UID, false)
	}
	c.add(placed{Pod: p, node: p.Node})
	e := framework.Event{Kind: changeOf(was, known, p), Pod: p, WasPod: was.Pod}
	e.Node = c.snapshot.Node(p.Node)
	if e.Kind&framework.PodRemoved != 0 {
		e.Node = c.snapshot.Node(was.node)
	}
	return e
}

// changeOf returns what became of a pod on a node.
func changeOf(was placed, known bool, p *framework.Pod) framework.EventKind {
	if !known {
		return framework.PodAdded
	}
	var kind framework.EventKind
	if was.reserved {
		kind |= framework.PodAdded
	}
	if was.node != p.Node {
		kind |= framework.PodRemoved
	}
	if !maps.Equal(was.Labels, p.Labels) || was.Deleting != p.Deleting {
		kind |= framework.PodLabelsChanged
	}
	if !slices.Equal(was.HostPorts, p.HostPorts) ||
		slices.ContainsFunc(was.Requests, func(r framework.Request) bool { return p.Request(r.Name) < r.Amount }) {
		kind |= framework.PodShrunk
	}
	return kind
}

// DeletePod stops counting a pod. It does nothing for a pod that is not on a node.
func (c *Cache) DeletePod(uid string) framework.Event {
	c.snapshot.SetPreempted(uid, false)
	p, ok := c.pods[uid]
	if !ok {
		return framework.Event{}
	}
	c.remove(uid)
	return c.Removed(framework.Assignment{Pod: p.Pod, Node: p.node})
}

// Removed returns the event of a pod that is not on a node any more.
func (c *Cache) Removed(a framework.Assignment) framework.Event {
	return framework.Event{Kind: framework.PodRemoved, Node: c.snapshot.Node(a.Node), WasPod: a.Pod}
}

// SetNamespace notes the labels of a namespace, nil when it was deleted.
func (c *Cache) SetNamespace(name string, labels map[string]string) framework.Event {
	if !c.snapshot.SetNamespace(name, labels) {
		return framework.Event{}
	}
	return framework.Event{Kind: framework.NamespaceChanged, Namespace: name}
}

// SetService notes the selector of a service, nil when it was deleted.
func (c *Cache) SetService(namespace, name string, selector map[string]string) {
	c.snapshot.SetService(namespace, name, selector)
}

// Reserve counts a pod on the node that was chosen for it. It implements framework.ReservePlugin.
func (c *Cache) Reserve(a framework.Assignment) error {
	if _, exists := c.snapshot.Find(a.Node); !exists {
		return fmt.Errorf("reserve node %s for pod %s/%s: the node does not exist", a.Node, a.Pod.Namespace, a.Pod.Name)
	}
	c.remove(a.Pod.UID)
	c.EndNomination(a.Pod.UID)
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

// Nominate notes that room is made for a waiting pod on a node, in place of its nomination before.
// It does nothing for a pod that is reserved or bound.
func (c *Cache) Nominate(p *framework.Pod, node string) framework.Event {
	if _, placed := c.pods[p.UID]; placed {
		return framework.Event{}
	}
	var event framework.Event
	n := c.node(node)
	if c.snapshot.NominatedNode(p.UID) != n {
		event = c.EndNomination(p.UID)
	}
	c.snapshot.Nominate(p, n)
	return event
}

// EndNomination ends the nomination of a pod, if any. For other pods it is as if the pod had left
// the node.
func (c *Cache) EndNomination(uid string) framework.Event {
	was, ok := c.snapshot.EndNomination(uid)
	if !ok {
		return framework.Event{}
	}
	c.drop(was.Node.Name)
	return c.Removed(framework.Assignment{Pod: was.Pod, Node: was.Node.Name})
}

// SetPreempted notes that a pod is about to be deleted to make room for another, or not any more.
// A pod that is not counted cannot be.
func (c *Cache) SetPreempted(uid string, preempted bool) {
	_, known := c.pods[uid]
	c.snapshot.SetPreempted(uid, preempted && known)
}

// SetBudget notes a PodDisruptionBudget, nil when it was deleted.
func (c *Cache) SetBudget(namespace, name string, b *framework.Budget) {
	c.snapshot.SetBudget(namespace, name, b)
}

func (c *Cache) add(p placed) {
	c.pods[p.UID] = p
	c.snapshot.AddPod(c.node(p.node), p.Pod)
}

func (c *Cache) remove(uid string) {
	p, ok := c.pods[uid]
	if !ok {
		return
	}
	delete(c.pods, uid)
	c.snapshot.RemovePod(c.nodes[p.node], p.Pod)
	c.drop(p.node)
}
