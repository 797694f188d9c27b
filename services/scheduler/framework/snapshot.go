package framework

import (
	"slices"
	"strings"
)

// Snapshot is the cluster as one cycle sees it. It is valid until the cache that it is of changes.
type Snapshot struct {
	// Nodes are all nodes, by name.
	Nodes []*Node
	// Resources numbers the entries of the nodes' vectors.
	Resources *ResourceTable
}

// Node returns a node, nil when it does not exist.
func (s *Snapshot) Node(name string) *Node {
	if at, found := s.Find(name); found {
		return s.Nodes[at]
	}
	return nil
}

// Find returns the place of a node in Nodes, or where it belongs.
func (s *Snapshot) Find(name string) (at int, found bool) {
	return slices.BinarySearchFunc(s.Nodes, name, func(n *Node, name string) int { return strings.Compare(n.Name, name) })
}
