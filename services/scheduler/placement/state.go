// Package placement decides which node a pod goes to. It is pure: it knows the nodes and the pods on them as it was told,
// and neither reads nor writes the cluster. Filters refuse nodes, scorers rate those left from 0 to 10; both are tables
// (filters.go, scores.go), and their names are what people see in events and in `xebec why`.
package placement

import (
	"fmt"
	"maps"
	"slices"

	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Resources are amounts by resource name: cpu in thousandths of a core, everything else in its own unit.
type Resources map[string]int64

func (r Resources) add(o Resources, sign int64) {
	for name, n := range o {
		r[name] += sign * n
	}
}

// amounts reads a resource list.
func amounts(list map[string]*metav1.Quantity) (Resources, error) {
	r := make(Resources, len(list))
	for name, q := range list {
		v, err := kind.Amount(q)
		if err != nil {
			return nil, fmt.Errorf("resource %s: %w", name, err)
		}
		if name == kind.ResourceCPU {
			r[name] = v.MilliValue()
		} else {
			r[name] = v.Value()
		}
	}
	return r, nil
}

// hostPort is a port that a pod takes on its node.
type hostPort struct {
	ip       string
	protocol string
	port     int32
}

func (p hostPort) clashes(o hostPort) bool {
	return p.port == o.port && p.protocol == o.protocol && (p.ip == o.ip || p.ip == anyAddress || o.ip == anyAddress)
}

const anyAddress = "0.0.0.0"

// Pod is what placing a pod depends on. It is immutable.
type Pod struct {
	// Namespace, Name and UID identify the pod.
	Namespace, Name, UID string
	// Priority orders pods that wait: the higher, the sooner.
	Priority int32
	// Node is the node that the pod is bound to, empty while it waits.
	Node string

	requests    Resources
	selector    map[string]string
	tolerations []*corev1.Toleration
	ports       []hostPort
	images      []string
	// siblings is what pods have in common that should not share a node: the uid of their controller.
	siblings string
}

// NewPod reads what matters out of a pod; the error names a resource that does not parse.
func NewPod(p *corev1.Pod) (*Pod, error) {
	spec := p.GetSpec()
	out := &Pod{
		Namespace: p.GetMetadata().GetNamespace(), Name: p.GetMetadata().GetName(), UID: p.GetMetadata().GetUid(),
		Priority: spec.GetPriority(), Node: spec.GetNodeName(),
		selector: spec.GetNodeSelector(), tolerations: spec.GetTolerations(),
	}
	var err error
	if out.requests, err = podRequests(p); err != nil {
		return nil, err
	}
	for _, c := range spec.GetContainers() {
		out.images = append(out.images, c.GetImage())
		for _, port := range c.GetPorts() {
			if port.GetHostPort() == 0 {
				continue
			}
			ip := port.GetHostIp()
			if ip == "" {
				ip = anyAddress
			}
			out.ports = append(out.ports, hostPort{ip, port.GetProtocol(), port.GetHostPort()})
		}
	}
	if owner := kind.ControllerOf(p); owner != nil {
		out.siblings = owner.GetUid()
	}
	return out, nil
}

// podRequests is what a pod asks for, as Kubernetes counts: what it says itself, or else its containers and sidecars
// together, or its largest init container if that is more; and its overhead. What is being resized, the pod as a whole, a
// container or a sidecar, counts for the most of what it asks for, what its node has granted it and what is in force; without
// the first where the node can never grant it.
func podRequests(p *corev1.Pod) (Resources, error) {
	spec := p.GetSpec()
	statuses := map[string]*corev1.ContainerStatus{}
	for _, c := range slices.Concat(p.GetStatus().GetContainerStatuses(), p.GetStatus().GetInitContainerStatuses()) {
		statuses[c.GetName()] = c
	}
	infeasible := kind.PodCondition(p, "PodResizePending").GetReason() == "Infeasible"
	total := Resources{kind.ResourcePods: 1}
	for _, c := range spec.GetContainers() {
		r, err := amounts(c.GetResources().GetRequests())
		if err == nil {
			err = r.resized(infeasible, statuses[c.GetName()])
		}
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", c.GetName(), err)
		}
		total.add(r, 1)
	}
	// An init container runs beside the sidecars before it; sidecars run on beside the others.
	side, most := Resources{}, Resources{}
	for _, c := range spec.GetInitContainers() {
		r, err := amounts(c.GetResources().GetRequests())
		if err == nil && c.GetRestartPolicy() == kind.RestartAlways {
			err = r.resized(infeasible, statuses[c.GetName()])
		}
		if err != nil {
			return nil, fmt.Errorf("init container %s: %w", c.GetName(), err)
		}
		r.add(side, 1)
		for name, n := range r {
			most[name] = max(most[name], n)
		}
		if c.GetRestartPolicy() == kind.RestartAlways {
			side = r
		}
	}
	total.add(side, 1)
	for name, n := range most {
		total[name] = max(total[name], n)
	}
	whole, err := amounts(spec.GetResources().GetRequests())
	if err == nil {
		err = whole.resized(infeasible, p.GetStatus())
	}
	if err != nil {
		return nil, fmt.Errorf("resources of the pod: %w", err)
	}
	maps.Copy(total, whole)
	overhead, err := amounts(spec.GetOverhead())
	if err != nil {
		return nil, fmt.Errorf("overhead: %w", err)
	}
	total.add(overhead, 1)
	return total, nil
}

// resized makes requests that are being changed in place what they count for, given the status of what they are of.
func (r Resources) resized(infeasible bool, status interface {
	GetAllocatedResources() map[string]*metav1.Quantity
	GetResources() *corev1.ResourceRequirements
}) error {
	granted, err := amounts(status.GetAllocatedResources())
	if err != nil {
		return fmt.Errorf("allocated: %w", err)
	}
	inForce, err := amounts(status.GetResources().GetRequests())
	if err != nil {
		return fmt.Errorf("in force: %w", err)
	}
	ignored := infeasible && len(granted)+len(inForce) > 0
	for name := range r {
		if has := max(granted[name], inForce[name]); has > r[name] || ignored {
			r[name] = has
		}
	}
	return nil
}

// node is a node and what its pods take of it.
type node struct {
	name          string
	labels        map[string]string
	taints        []*corev1.Taint
	unschedulable bool
	allocatable   Resources
	images        map[string]bool

	used     Resources
	ports    map[hostPort]int
	siblings map[string]int
}

// State is the nodes with the pods on them. It is not safe for concurrent use.
type State struct {
	nodes map[string]*node
	order []*node
	pods  map[string]*Pod // by uid, those on a node
}

// NewState returns a cluster without nodes.
func NewState() *State { return &State{nodes: map[string]*node{}, pods: map[string]*Pod{}} }

// SetNode adds a node or changes it; its pods stay.
func (s *State) SetNode(n *corev1.Node) error {
	name := n.GetMetadata().GetName()
	allocatable, err := amounts(n.GetStatus().GetAllocatable())
	if err != nil {
		return fmt.Errorf("node %s: allocatable: %w", name, err)
	}
	at := s.node(name)
	at.labels, at.taints, at.unschedulable, at.allocatable = n.GetMetadata().GetLabels(), n.GetSpec().GetTaints(), n.GetSpec().GetUnschedulable(), allocatable
	at.images = map[string]bool{}
	for _, image := range n.GetStatus().GetImages() {
		for _, name := range image.GetNames() {
			at.images[normalImage(name)] = true
		}
	}
	s.reorder()
	return nil
}

// DeleteNode removes a node. Pods that are still bound to it are kept in mind, in case it comes back.
func (s *State) DeleteNode(name string) {
	n := s.nodes[name]
	if n == nil {
		return
	}
	n.allocatable = nil
	if n.used[kind.ResourcePods] == 0 {
		delete(s.nodes, name)
	}
	s.reorder()
}

// node returns the entry of a node, made when a pod is bound to it before it is known.
func (s *State) node(name string) *node {
	n := s.nodes[name]
	if n == nil {
		n = &node{name: name, used: Resources{}, ports: map[hostPort]int{}, siblings: map[string]int{}}
		s.nodes[name] = n
	}
	return n
}

// reorder lists the nodes that exist.
func (s *State) reorder() {
	s.order = s.order[:0]
	for _, n := range s.nodes {
		if n.allocatable != nil {
			s.order = append(s.order, n)
		}
	}
	sortNodes(s.order)
}

// Place counts a pod on a node as it is now: it replaces what was counted of the same pod before, there or elsewhere. It
// reports whether the pod takes less of something than before, so that another may find room.
func (s *State) Place(p *Pod, on string) (freed bool) {
	if was := s.pods[p.UID]; was != nil {
		freed = was.Node != on || !slices.Equal(was.ports, p.ports)
		for name, n := range was.requests {
			freed = freed || p.requests[name] < n
		}
		s.Remove(p.UID)
	}
	placed := *p
	placed.Node = on
	s.pods[p.UID] = &placed
	s.count(&placed, 1)
	return freed
}

// Remove stops counting a pod. It does nothing for one that is not on a node.
func (s *State) Remove(uid string) {
	if p := s.pods[uid]; p != nil {
		s.count(p, -1)
		delete(s.pods, uid)
	}
}

// On returns the node that a pod is counted on, empty for none.
func (s *State) On(uid string) string {
	if p := s.pods[uid]; p != nil {
		return p.Node
	}
	return ""
}

func (s *State) count(p *Pod, sign int) {
	n := s.node(p.Node)
	n.used.add(p.requests, int64(sign))
	for _, port := range p.ports {
		bump(n.ports, port, sign)
	}
	if p.siblings != "" {
		bump(n.siblings, p.siblings, sign)
	}
	if n.allocatable == nil && n.used[kind.ResourcePods] == 0 {
		delete(s.nodes, p.Node)
	}
}

func bump[K comparable](counts map[K]int, key K, by int) {
	counts[key] += by
	if counts[key] == 0 {
		delete(counts, key)
	}
}
