package apiserver

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// labelSkipMirror keeps the Endpoints from being mirrored to slices: the slices are there.
const labelSkipMirror = "endpointslice.kubernetes.io/skip-mirror"

// kubernetesEndpoints is the Endpoints object beside the slices of the service default/kubernetes,
// for programs that do not know slices. It has the addresses of one family.
func kubernetesEndpoints(family string, wanted []*discoveryv1.EndpointSlice) *corev1.Endpoints {
	e := &corev1.Endpoints{Metadata: &metav1.ObjectMeta{
		Namespace: core.KubernetesNamespace, Name: core.KubernetesService, Labels: map[string]string{labelSkipMirror: "true"},
	}}
	for _, slice := range wanted {
		if slice.GetAddressType() != family {
			continue
		}
		subset := &corev1.EndpointSubset{}
		for _, backend := range slice.GetEndpoints() {
			subset.Addresses = append(subset.Addresses, &corev1.EndpointAddress{Ip: backend.GetAddresses()[0]})
		}
		for _, port := range slice.GetPorts() {
			subset.Ports = append(subset.Ports, &corev1.EndpointPort{Name: port.GetName(), Port: port.GetPort(), Protocol: port.GetProtocol()})
		}
		e.Subsets = append(e.Subsets, subset)
	}
	return e
}

// writeKubernetesEndpoints creates or changes the Endpoints; those that are as wanted cost no read
// and no write.
func (s *Service) writeKubernetesEndpoints(ctx context.Context, wanted *corev1.Endpoints) error {
	same := func(a, b *corev1.EndpointSubset) bool { return proto.Equal(a, b) }
	err := keepOwn(ctx, s, wanted, func(stored *corev1.Endpoints) bool {
		if slices.EqualFunc(stored.GetSubsets(), wanted.GetSubsets(), same) &&
			maps.Equal(stored.GetMetadata().GetLabels(), wanted.GetMetadata().GetLabels()) {
			return false
		}
		stored.Metadata.Labels, stored.Subsets = wanted.GetMetadata().GetLabels(), wanted.GetSubsets()
		return true
	})
	if err != nil {
		return fmt.Errorf("write endpoints %s: %w", wanted.GetMetadata().GetName(), err)
	}
	return nil
}
