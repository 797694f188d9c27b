package framework

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Node is a node and what its pods take of it. Plug-ins only read it.
type Node struct {
	// Name is the node's name.
	Name string
	// Labels are metadata.labels.
	Labels map[string]string
	// Taints are spec.taints.
	Taints []*corev1.Taint
	// Unschedulable is spec.unschedulable: the node is cordoned.
	Unschedulable bool
	// Allocatable is what the node offers to pods, and Used what those on it request. Both have the
	// length of the table.
	Allocatable, Used Resources
	// Images holds the full names of the images that the node has.
	Images map[string]bool
	// Pods are the pods on the node.
	Pods []*Pod
	// Nominated are the waiting pods for which room is made on the node.
	Nominated []*Pod
	// HostPorts counts the pods that take each port.
	HostPorts map[HostPort]int
	// Controllers counts the pods of each controller that are not being deleted, by its uid.
	Controllers map[string]int
}

// NewNode returns a node that offers nothing and has no pods.
func NewNode(name string, t *ResourceTable) *Node {
	return &Node{
		Name: name, Allocatable: make(Resources, t.Len()), Used: make(Resources, t.Len()),
		HostPorts: map[HostPort]int{}, Controllers: map[string]int{},
	}
}

// Update takes over what a node says of itself; its pods stay. It returns the kinds of change.
// Every resource of allocatable must be in the table.
func (n *Node) Update(from *corev1.Node, allocatable Resources) EventKind {
	var kinds EventKind
	if n.Unschedulable != from.GetSpec().GetUnschedulable() {
		kinds |= NodeUnschedulableChanged
	}
	if !maps.Equal(n.Labels, from.GetMetadata().GetLabels()) {
		kinds |= NodeLabelsChanged
	}
	if !slices.EqualFunc(n.Taints, from.GetSpec().GetTaints(), func(a, b *corev1.Taint) bool { return proto.Equal(a, b) }) {
		kinds |= NodeTaintsChanged
	}
	if !slices.Equal(n.Allocatable, allocatable) {
		kinds |= NodeAllocatableChanged
	}
	n.Unschedulable, n.Labels, n.Taints = from.GetSpec().GetUnschedulable(), from.GetMetadata().GetLabels(), from.GetSpec().GetTaints()
	n.Allocatable = allocatable
	n.Images = map[string]bool{}
	for _, image := range from.GetStatus().GetImages() {
		for _, name := range image.GetNames() {
			n.Images[normalImage(name)] = true
		}
	}
	return kinds
}

// AddPod counts a pod on the node.
func (n *Node) AddPod(p *Pod, t *ResourceTable) {
	n.Pods = append(n.Pods, p)
	n.count(p, t, 1)
}

// RemovePod undoes AddPod for the same pod.
func (n *Node) RemovePod(p *Pod, t *ResourceTable) {
	if at := slices.Index(n.Pods, p); at >= 0 {
		last := len(n.Pods) - 1
		n.Pods[at], n.Pods[last] = n.Pods[last], nil
		n.Pods = n.Pods[:last]
	}
	n.count(p, t, -1)
}

func (n *Node) count(p *Pod, t *ResourceTable, sign int) {
	for _, r := range p.Requests {
		if id, ok := t.ID(r.Name); ok {
			n.Used[id] += int64(sign) * r.Amount
		}
	}
	for _, port := range p.HostPorts {
		bump(n.HostPorts, port, sign)
	}
	if p.Controller != "" && !p.Deleting {
		bump(n.Controllers, p.Controller, sign)
	}
}

func bump[K comparable](counts map[K]int, key K, by int) {
	counts[key] += by
	if counts[key] == 0 {
		delete(counts, key)
	}
}
