package endpoints

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// maxSubsetAddresses is how many addresses an Endpoints object has at most, and how many addresses
	// of a subset are mirrored.
	maxSubsetAddresses = 1000
	// truncated is the value of the annotation on Endpoints that have more.
	truncated = "truncated"
)

// wantedEndpoints returns the Endpoints object that a service with a selector should have: have,
// which may be nil, with the addresses of its pods. It returns have itself when nothing differs.
func wantedEndpoints(svc *corev1.Service, pods []*corev1.Pod, have *corev1.Endpoints) *corev1.Endpoints {
	m := svc.GetMetadata()
	now := &corev1.Endpoints{Metadata: &metav1.ObjectMeta{Namespace: m.GetNamespace(), Name: m.GetName()}}
	if have != nil {
		now = proto.CloneOf(have)
	}
	now.Metadata.Labels = endpointsLabels(svc)
	now.Subsets = subsetsOf(svc, pods)
	annotations := maps.Clone(now.Metadata.Annotations)
	delete(annotations, core.AnnotationOverCapacity)
	if truncate(now.Subsets) {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[core.AnnotationOverCapacity] = truncated
		now.Subsets = slices.DeleteFunc(now.Subsets, func(s *corev1.EndpointSubset) bool {
			return len(s.GetAddresses())+len(s.GetNotReadyAddresses()) == 0
		})
	}
	now.Metadata.Annotations = annotations
	if have != nil && proto.Equal(have, now) {
		return have
	}
	return now
}

// endpointsLabels are the service's own labels and those of the controller.
func endpointsLabels(svc *corev1.Service) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, svc.GetMetadata().GetLabels())
	delete(labels, labelHeadless)
	if svc.GetSpec().GetClusterIp() == core.ClusterIPNone {
		labels[labelHeadless] = ""
	}
	labels[core.LabelEndpointsManagedBy] = core.EndpointsController
	return labels
}

// subsetsOf groups the addresses of a service's pods by their ports. The addresses are of the
// service's first family alone.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) []*corev1.EndpointSubset {
	byPorts := map[string]*corev1.EndpointSubset{}
	publish := svc.GetSpec().GetPublishNotReadyAddresses()
	for _, pod := range pods {
		if !eligible(svc, pod) || pod.GetMetadata().GetDeletionTimestamp() != nil && !publish {
			continue
		}
		address, ports := firstAddress(svc, pod), portsFor(svc, pod)
		headless := len(svc.GetSpec().GetPorts()) == 0 && svc.GetSpec().GetClusterIp() == core.ClusterIPNone
		if address == "" || len(ports) == 0 && !headless {
			continue
		}
		key := groupKey("", ports)
		if byPorts[key] == nil {
			byPorts[key] = &corev1.EndpointSubset{Ports: subsetPorts(ports)}
		}
		subset := byPorts[key]
		if publish || core.IsPodReady(pod) {
			subset.Addresses = append(subset.Addresses, endpointAddress(svc, pod, address))
		} else {
			subset.NotReadyAddresses = append(subset.NotReadyAddresses, endpointAddress(svc, pod, address))
		}
	}
	var subsets []*corev1.EndpointSubset
	for _, key := range slices.Sorted(maps.Keys(byPorts)) {
		subset := byPorts[key]
		slices.SortFunc(subset.Addresses, compareAddresses)
		slices.SortFunc(subset.NotReadyAddresses, compareAddresses)
		subsets = append(subsets, subset)
	}
	return subsets
}

// firstAddress is the pod's address of the service's first family, empty if it has none.
func firstAddress(svc *corev1.Service, pod *corev1.Pod) string {
	families := svc.GetSpec().GetIpFamilies()
	for _, address := range core.PodAddresses(pod) {
		if family := discovery.AddressTypeOf(address); family != "" && (len(families) == 0 || family == families[0]) {
			return address
		}
	}
	return ""
}

func endpointAddress(svc *corev1.Service, pod *corev1.Pod, address string) *corev1.EndpointAddress {
	e := endpoint(svc, pod, address)
	return &corev1.EndpointAddress{Ip: address, Hostname: e.GetHostname(), NodeName: e.NodeName, TargetRef: e.GetTargetRef()}
}

func subsetPorts(ports []*discoveryv1.EndpointPort) []*corev1.EndpointPort {
	out := make([]*corev1.EndpointPort, len(ports))
	for i, p := range ports {
		out[i] = &corev1.EndpointPort{Name: p.GetName(), Port: p.GetPort(), Protocol: p.GetProtocol(), AppProtocol: p.AppProtocol}
	}
	return out
}

func compareAddresses(a, b *corev1.EndpointAddress) int {
	return cmp.Or(cmp.Compare(a.GetIp(), b.GetIp()), cmp.Compare(a.GetTargetRef().GetUid(), b.GetTargetRef().GetUid()))
}

// truncate shortens subsets to the most addresses that an Endpoints object has, those that take
// traffic first. It reports whether there were more.
func truncate(subsets []*corev1.EndpointSubset) bool {
	left, cut := maxSubsetAddresses, false
	shorten := func(list []*corev1.EndpointAddress) []*corev1.EndpointAddress {
		n := min(len(list), left)
		cut = cut || n < len(list)
		left -= n
		return list[:n]
	}
	for _, s := range subsets {
		s.Addresses = shorten(s.Addresses)
	}
	for _, s := range subsets {
		s.NotReadyAddresses = shorten(s.NotReadyAddresses)
	}
	return cut
}
