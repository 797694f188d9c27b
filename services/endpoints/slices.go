package endpoints

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	labelServiceName = discovery.LabelServiceName
	labelManagedBy   = discovery.LabelEndpointSliceManagedBy
	managedBy        = discovery.EndpointSliceController
	// labelHeadless marks the slices of services without a cluster IP, as Kubernetes does.
	labelHeadless = "service.kubernetes.io/headless"

	podFailed    = "Failed"
	podSucceeded = "Succeeded"
)

// serviceOf returns the key of the service that a slice belongs to.
func serviceOf(e *discoveryv1.EndpointSlice) controller.Key {
	m := e.GetMetadata()
	return controller.Key{Namespace: m.GetNamespace(), Name: m.GetLabels()[labelServiceName]}
}

// plan is what has to be written to bring the slices of a service to what they should be: first
// what is created, then the updates, those that take endpoints away last, then the removals.
type plan struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

func (p *plan) empty() bool { return len(p.create)+len(p.update)+len(p.remove) == 0 }

// planSlices computes the writes that turn the slices a service has into the ones that hold exactly
// its endpoints, at most so many in each, with as few writes as can be: endpoints stay in their
// slice, new ones fill slices that are written anyway before others with room, and only then new
// slices are made.
func planSlices(svc *corev1.Service, pods []*corev1.Pod, have []*discoveryv1.EndpointSlice, most int) plan {
	var p plan
	groups := wanted(svc, pods)
	byGroup := map[string][]*discoveryv1.EndpointSlice{}
	for _, e := range have {
		g := groupKey(e.GetAddressType(), e.GetPorts())
		if groups[g] == nil || e.GetMetadata().GetDeletionTimestamp() != nil {
			p.remove = append(p.remove, e)
			continue
		}
		byGroup[g] = append(byGroup[g], e)
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		p.group(headOf(svc), groups[g], byGroup[g], most)
	}
	// A node that has heard of an endpoint's leaving has so heard of those that take its place.
	slices.SortStableFunc(p.update, func(a, b *discoveryv1.EndpointSlice) int {
		return cmp.Compare(lost(have, a), lost(have, b))
	})
	return p
}

// lost counts the endpoints that a slice's old version had ready and the new one has not.
func lost(have []*discoveryv1.EndpointSlice, now *discoveryv1.EndpointSlice) int {
	ready := map[string]bool{}
	for _, e := range now.GetEndpoints() {
		ready[endpointKey(e)] = e.GetConditions().GetReady()
	}
	n := 0
	for _, old := range have {
		if old.GetMetadata().GetName() != now.GetMetadata().GetName() {
			continue
		}
		for _, e := range old.GetEndpoints() {
			if e.GetConditions().GetReady() && !ready[endpointKey(e)] {
				n++
			}
		}
	}
	return n
}

// group is the endpoints that can share slices: of one address family and with the same numbers for
// the ports.
type group struct {
	addressType string
	ports       []*discoveryv1.EndpointPort
	endpoints   map[string]*discoveryv1.Endpoint // by uid of the pod and address
}

// wanted computes a service's endpoints. A service that has none of a family yet has an empty group
// of it, so that there is a slice to watch.
func wanted(svc *corev1.Service, pods []*corev1.Pod) map[string]*group {
	groups := map[string]*group{}
	families := svc.GetSpec().GetIpFamilies()
	for _, pod := range pods {
		if !eligible(svc, pod) {
			continue
		}
		ports := portsFor(svc, pod)
		for _, address := range core.PodAddresses(pod) {
			family := discovery.AddressTypeOf(address)
			if family == "" || len(families) > 0 && !slices.Contains(families, family) {
				continue
			}
			key := groupKey(family, ports)
			if groups[key] == nil {
				groups[key] = &group{addressType: family, ports: ports, endpoints: map[string]*discoveryv1.Endpoint{}}
			}
			e := endpoint(svc, pod, address)
			groups[key].endpoints[endpointKey(e)] = e
		}
	}
	if len(families) == 0 {
		families = []string{discovery.AddressIPv4}
		if len(groups) > 0 {
			return groups
		}
	}
	filled := map[string]bool{}
	for _, g := range groups {
		filled[g.addressType] = true
	}
	for _, family := range families {
		if ports := numberedPorts(svc); !filled[family] {
			groups[groupKey(family, ports)] = &group{addressType: family, ports: ports}
		}
	}
	return groups
}

// eligible reports whether a pod is behind a service: it matches, has an address, and has not
// ended.
func eligible(svc *corev1.Service, pod *corev1.Pod) bool {
	if !selects(svc.GetSpec().GetSelector(), pod.GetMetadata().GetLabels()) || pod.GetStatus().GetPodIp() == "" {
		return false
	}
	phase := pod.GetStatus().GetPhase()
	return phase != podFailed && phase != podSucceeded
}

// endpoint describes one address of a pod. As in Kubernetes: serving is the pod's readiness alone,
// ready is that unless it is terminating, or always when the service publishes addresses that are
// not ready.
func endpoint(svc *corev1.Service, pod *corev1.Pod, address string) *discoveryv1.Endpoint {
	m := pod.GetMetadata()
	serving := core.IsPodReady(pod)
	terminating := m.GetDeletionTimestamp() != nil
	publish := svc.GetSpec().GetPublishNotReadyAddresses()
	e := &discoveryv1.Endpoint{
		Addresses: []string{address},
		Conditions: &discoveryv1.EndpointConditions{
			Ready:       proto.Bool(publish || serving && !terminating),
			Serving:     proto.Bool(serving),
			Terminating: proto.Bool(terminating),
		},
		TargetRef: &corev1.ObjectReference{
			Kind: "Pod", Namespace: m.GetNamespace(), Name: m.GetName(), Uid: m.GetUid(),
		},
	}
	if node := pod.GetSpec().GetNodeName(); node != "" {
		e.NodeName = &node
	}
	// The name that DNS gives the pod within its service.
	if host := pod.GetSpec().GetHostname(); host != "" && pod.GetSpec().GetSubdomain() == svc.GetMetadata().GetName() {
		e.Hostname = &host
	}
	return e
}

func endpointKey(e *discoveryv1.Endpoint) string {
	return e.GetTargetRef().GetUid() + "/" + strings.Join(e.GetAddresses(), ",")
}

// portsFor resolves a service's ports against a pod's: a named target port is the pod's own number
// for it, and a port that the pod does not have is left out.
func portsFor(svc *corev1.Service, pod *corev1.Pod) []*discoveryv1.EndpointPort {
	var ports []*discoveryv1.EndpointPort
	for _, sp := range svc.GetSpec().GetPorts() {
		number := sp.GetPort()
		if target := sp.GetTargetPort(); target.GetType() == 1 {
			number = containerPort(pod, target.GetStrVal(), sp.GetProtocol())
		} else if target.GetIntVal() != 0 {
			number = target.GetIntVal()
		}
		if number > 0 {
			ports = append(ports, endpointPort(sp, number))
		}
	}
	return ports
}

// numberedPorts are the ports that are known without a pod.
func numberedPorts(svc *corev1.Service) []*discoveryv1.EndpointPort {
	return portsFor(svc, &corev1.Pod{})
}

func endpointPort(sp *corev1.ServicePort, number int32) *discoveryv1.EndpointPort {
	return &discoveryv1.EndpointPort{
		Name:        proto.String(sp.GetName()),
		Protocol:    proto.String(protocolOf(sp.GetProtocol())),
		Port:        &number,
		AppProtocol: sp.AppProtocol,
	}
}

func protocolOf(p string) string { return cmp.Or(p, core.ProtocolTCP) }

func containerPort(pod *corev1.Pod, name, protocol string) int32 {
	for _, c := range pod.GetSpec().GetContainers() {
		for _, p := range c.GetPorts() {
			if p.GetName() == name && protocolOf(p.GetProtocol()) == protocolOf(protocol) {
				return p.GetContainerPort()
			}
		}
	}
	return 0
}

// groupKey is equal for slices that can hold the same endpoints.
func groupKey(addressType string, ports []*discoveryv1.EndpointPort) string {
	keys := make([]string, len(ports))
	for i, p := range ports {
		b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(p) // A message of scalars always encodes.
		keys[i] = string(b)
	}
	slices.Sort(keys)
	return addressType + "\x00" + strings.Join(keys, "\x00")
}

// group plans the slices of one group.
func (p *plan) group(h head, g *group, have []*discoveryv1.EndpointSlice, most int) {
	missing := maps.Clone(g.endpoints)
	// Fuller slices first: what is emptied is the least.
	slices.SortFunc(have, func(a, b *discoveryv1.EndpointSlice) int {
		return cmp.Or(cmp.Compare(len(b.GetEndpoints()), len(a.GetEndpoints())),
			strings.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName()))
	})
	type slice struct {
		old     *discoveryv1.EndpointSlice
		now     []*discoveryv1.Endpoint
		changed bool
	}
	kept := make([]*slice, len(have))
	for i, old := range have {
		s := &slice{old: old, changed: !h.isOf(old)}
		for _, e := range old.GetEndpoints() {
			want := missing[endpointKey(e)]
			if want == nil || len(s.now) == most {
				s.changed = true
				continue
			}
			delete(missing, endpointKey(e))
			s.changed = s.changed || !proto.Equal(want, e)
			s.now = append(s.now, want)
		}
		kept[i] = s
	}
	rest := make([]*discoveryv1.Endpoint, 0, len(missing))
	for _, k := range slices.Sorted(maps.Keys(missing)) {
		rest = append(rest, missing[k])
	}
	fill := func(onlyChanged bool) {
		for _, s := range kept {
			if onlyChanged && !s.changed {
				continue
			}
			if n := min(most-len(s.now), len(rest)); n > 0 {
				s.now, rest, s.changed = append(s.now, rest[:n]...), rest[n:], true
			}
		}
	}
	fill(true)
	// An unchanged slice is written only for what would otherwise need a slice of its own.
	fill(false)
	empty := len(g.endpoints) == 0
	left := len(kept)
	for _, s := range kept {
		switch {
		case len(s.now) == 0 && (!empty || left > 1):
			p.remove = append(p.remove, s.old)
			left--
		case s.changed:
			now := proto.Clone(s.old).(*discoveryv1.EndpointSlice)
			h.set(now)
			now.Endpoints = s.now
			p.update = append(p.update, now)
		}
	}
	for len(rest) > 0 || left == 0 {
		n := min(most, len(rest))
		now := &discoveryv1.EndpointSlice{
			Metadata: &metav1.ObjectMeta{
				Namespace: h.namespace, GenerateName: h.name + "-",
			},
			AddressType: g.addressType, Ports: g.ports, Endpoints: rest[:n],
		}
		h.set(now)
		p.create = append(p.create, now)
		rest = rest[n:]
		left++
	}
}

// head is what the slices of one object have in common.
type head struct {
	namespace, name string
	labels          map[string]string
	// annotations are nil where slices keep those that they have.
	annotations map[string]string
	owner       *metav1.OwnerReference
}

// headOf returns the head of the slices of a service.
func headOf(svc *corev1.Service) head {
	m := svc.GetMetadata()
	return head{namespace: m.GetNamespace(), name: m.GetName(), labels: headLabels(svc), owner: kinds.NewControllerRef(svc)}
}

// set gives a slice the head.
func (h head) set(e *discoveryv1.EndpointSlice) {
	e.Metadata.Labels = h.labels
	e.Metadata.OwnerReferences = []*metav1.OwnerReference{h.owner}
	if h.annotations != nil {
		e.Metadata.Annotations = h.annotations
	}
}

// isOf reports whether a slice has the head.
func (h head) isOf(e *discoveryv1.EndpointSlice) bool {
	m := e.GetMetadata()
	refs := m.GetOwnerReferences()
	return maps.Equal(m.GetLabels(), h.labels) && len(refs) == 1 && proto.Equal(refs[0], h.owner) &&
		(h.annotations == nil || maps.Equal(m.GetAnnotations(), h.annotations))
}

// headLabels are the service's own labels, which people select slices by, and those that tie the
// slice to it.
func headLabels(svc *corev1.Service) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, svc.GetMetadata().GetLabels())
	labels[labelServiceName] = svc.GetMetadata().GetName()
	labels[labelManagedBy] = managedBy
	if svc.GetSpec().GetClusterIp() == core.ClusterIPNone {
		labels[labelHeadless] = ""
	}
	return labels
}
