package framework

import (
	"iter"
	"maps"
	"slices"
	"strings"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Snapshot is the cluster as one cycle sees it. It is valid until the cache that it is of changes,
// and not safe for concurrent use: tallies are made when they are asked for.
type Snapshot struct {
	// Nodes are all nodes, by name.
	Nodes []*Node
	// Resources numbers the entries of the nodes' vectors.
	Resources *ResourceTable

	namespaces map[string]map[string]string            // labels by name
	services   map[string]map[string]map[string]string // selectors by namespace and name
	pods       podIndex

	nominations map[string]Nomination // of waiting pods, by uid
	preempted   map[string]bool       // uids of pods that are about to be deleted
	budgets     map[string]*Budget    // by namespace and name
}

// NewSnapshot returns a cluster without nodes.
func NewSnapshot() Snapshot {
	return Snapshot{
		Resources: NewResourceTable(), namespaces: map[string]map[string]string{},
		services: map[string]map[string]map[string]string{}, pods: newPodIndex(),
		nominations: map[string]Nomination{}, preempted: map[string]bool{}, budgets: map[string]*Budget{},
	}
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

// UpdateNode takes over what a node says of itself, as Node.Update does; a node that did not exist
// begins to.
func (s *Snapshot) UpdateNode(n *Node, from *corev1.Node, allocatable Resources) EventKind {
	at, found := s.Find(n.Name)
	moves := !found || !maps.Equal(n.Labels, from.GetMetadata().GetLabels())
	if found && moves {
		s.countPodsOf(n, -1)
	}
	kinds := n.Update(from, allocatable)
	if !found {
		s.Nodes = slices.Insert(s.Nodes, at, n)
		kinds = NodeAdded
	}
	if moves {
		s.countPodsOf(n, 1)
	}
	return kinds
}

// DeleteNode ends the existence of a node. The node keeps its pods, which no tally counts.
func (s *Snapshot) DeleteNode(n *Node) {
	if at, found := s.Find(n.Name); found {
		s.countPodsOf(n, -1)
		s.Nodes = slices.Delete(s.Nodes, at, at+1)
	}
}

func (s *Snapshot) countPodsOf(n *Node, by int) {
	for _, p := range n.Pods {
		s.pods.count(s, n, p, by)
	}
}

// AddPod counts a pod on a node, which may not exist.
func (s *Snapshot) AddPod(n *Node, p *Pod) {
	n.AddPod(p, s.Resources)
	if _, exists := s.Find(n.Name); exists {
		s.pods.count(s, n, p, 1)
	}
}

// RemovePod undoes AddPod for the same pod.
func (s *Snapshot) RemovePod(n *Node, p *Pod) {
	n.RemovePod(p, s.Resources)
	if _, exists := s.Find(n.Name); exists {
		s.pods.count(s, n, p, -1)
	}
}

// SetNamespace notes the labels of a namespace, and reports whether they are new; nil when it was
// deleted.
func (s *Snapshot) SetNamespace(name string, labels map[string]string) bool {
	was, known := s.namespaces[name]
	if labels == nil {
		delete(s.namespaces, name)
	} else {
		s.namespaces[name] = labels
	}
	if known == (labels != nil) && maps.Equal(was, labels) {
		return false
	}
	s.pods.drop(func(t *podTally) bool { return slices.ContainsFunc(t.selectors, (*PodSelector).UsesNamespaceLabels) })
	return true
}

// SetService notes the selector of a service; nil when it was deleted or has none.
func (s *Snapshot) SetService(namespace, name string, selector map[string]string) {
	of := s.services[namespace]
	switch {
	case len(selector) == 0:
		delete(of, name)
	case of == nil:
		s.services[namespace] = map[string]map[string]string{name: selector}
	default:
		of[name] = selector
	}
}

// ServiceLabels returns the labels that the services select which select a pod, nil for none.
func (s *Snapshot) ServiceLabels(p *Pod) map[string]string {
	var all map[string]string
	for _, selector := range s.services[p.Namespace] {
		if !hasLabels(p, selector) {
			continue
		}
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, selector)
	}
	return all
}

func hasLabels(p *Pod, selector map[string]string) bool {
	for key, value := range selector {
		if has, ok := p.Labels[key]; !ok || has != value {
			return false
		}
	}
	return true
}

// Tally returns the pods on nodes that match all selectors, by the value of a label of their nodes.
// It stays current.
func (s *Snapshot) Tally(topologyKey string, selectors ...*PodSelector) *Tally {
	return s.pods.tally(s, topologyKey, false, selectors)
}

// TallyByNode returns the pods on each node that match a selector and are not being deleted. It
// stays current.
func (s *Snapshot) TallyByNode(selector *PodSelector) *Tally {
	return s.pods.tally(s, "", true, []*PodSelector{selector})
}

// Carried yields the terms of a kind that pods on nodes have and that choose a pod.
func (s *Snapshot) Carried(kind TermKind, p *Pod) iter.Seq[*Carried] {
	return func(yield func(*Carried) bool) {
		for _, c := range s.pods.carried[kind] {
			if c.Matches(s, p) && !yield(c) {
				return
			}
		}
	}
}
