package apiserver

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
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
	if err := s.storeKubernetesEndpoints(ctx, wanted); err != nil && !apierr.IsAlreadyExists(err) {
		return fmt.Errorf("write endpoints %s: %w", wanted.GetMetadata().GetName(), err)
	}
	return nil
}

func (s *Service) storeKubernetesEndpoints(ctx context.Context, wanted *corev1.Endpoints) error {
	k := kinds.Of(wanted)
	stored, ok := s.store.GetCached(registry.KeyOfObject(k, wanted))
	if !ok {
		return s.createOwn(ctx, wanted)
	}
	o, err := registry.Decode(k, stored)
	if err != nil {
		return err
	}
	next := o.(*corev1.Endpoints)
	same := func(a, b *corev1.EndpointSubset) bool { return proto.Equal(a, b) }
	if slices.EqualFunc(next.GetSubsets(), wanted.GetSubsets(), same) &&
		maps.Equal(next.GetMetadata().GetLabels(), wanted.GetMetadata().GetLabels()) {
		return nil
	}
	next.Metadata.Labels, next.Subsets = wanted.GetMetadata().GetLabels(), wanted.GetSubsets()
	a, err := anypb.New(next)
	if err != nil {
		return err
	}
	_, err = s.pipeline.Update(ctx, self, &apiv1.UpdateRequest{Object: a})
	return err
}
