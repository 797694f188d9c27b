package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	discoverykinds "github.com/xebec-project/xebec/internal/kinds/discovery"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

const (
	// kubernetesPort is the port at which pods reach the gateways at the service's address, and
	// kubernetesPortName its name.
	kubernetesPort     = 443
	kubernetesPortName = "https"
	// kubernetesManager marks the service's slices as those of the apiservers.
	kubernetesManager = "apiserver.xebec"
	// kubernetesInterval is the time between two checks of the service and its slices, and
	// kubernetesRetry the time from a failure to the next attempt.
	kubernetesInterval = 30 * time.Second
	kubernetesRetry    = 2 * time.Second
)

// keepKubernetes keeps the service default/kubernetes, with which pods reach the cluster. Its
// endpoints are the registered gateways. Every instance does it: all have the same desired state,
// and only differences are written. Without any registered gateway it makes no service. It returns
// when ctx ends.
func (s *Service) keepKubernetes(ctx context.Context) {
	directory := discovery.New(s.etcd, s.log)
	defer directory.Close()
	latest := make(chan []string, 1)
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() {
		directory.Follow(ctx, "gateway", func(addresses []string) {
			select {
			case <-latest: // replaced by a newer one
			default:
			}
			latest <- addresses
		})
	})
	again := time.NewTimer(kubernetesInterval)
	defer again.Stop()
	var gateways []string
	for {
		select {
		case <-ctx.Done():
			return
		case gateways = <-latest:
		case <-again.C:
		}
		next := kubernetesInterval
		if err := s.makeKubernetes(ctx, kubernetesSlices(gateways)); err != nil && ctx.Err() == nil {
			s.log.Warn("Failed to reconcile service default/kubernetes", zap.Error(err))
			next = kubernetesRetry
		}
		again.Reset(next)
	}
}

// makeKubernetes creates the service if it does not exist, and makes its slices the wanted ones.
func (s *Service) makeKubernetes(ctx context.Context, wanted []*discoveryv1.EndpointSlice) error {
	if len(wanted) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	services := kinds.Of(new(corev1.Service))
	if _, ok := s.store.GetCached(registry.KeyOf(services, core.KubernetesNamespace, core.KubernetesService)); !ok {
		err := s.createOwn(ctx, kubernetesService(ipalloc.First(s.serviceCIDRs[0])))
		if err != nil && !apierr.IsAlreadyExists(err) {
			return err
		}
	}
	k := kinds.Of(new(discoveryv1.EndpointSlice))
	list, err := s.store.List(ctx, storage.ListOptions{Group: k.Group, Kind: k.Name, Namespace: core.KubernetesNamespace, Stale: true,
		Match: func(o *storage.Object) bool {
			return o.Meta().GetLabels()[discoverykinds.LabelEndpointSliceManagedBy] == kubernetesManager
		}})
	if err != nil {
		return err
	}
	var problems []error
	for _, o := range list.Objects {
		if !slices.ContainsFunc(wanted, func(w *discoveryv1.EndpointSlice) bool { return w.GetMetadata().GetName() == o.Key.Name }) {
			problems = append(problems, s.deleteSlice(ctx, k, o.Key))
		}
	}
	for _, w := range wanted {
		problems = append(problems, s.writeSlice(ctx, w))
	}
	family := discoverykinds.AddressTypeOf(s.serviceCIDRs[0].Addr().String())
	problems = append(problems, s.writeKubernetesEndpoints(ctx, kubernetesEndpoints(family, wanted)))
	return errors.Join(problems...)
}

// writeSlice creates or changes a slice. One that is as wanted needs no request to etcd.
func (s *Service) writeSlice(ctx context.Context, wanted *discoveryv1.EndpointSlice) error {
	err := keepOwn(ctx, s, wanted, func(stored *discoveryv1.EndpointSlice) bool {
		if sameSlice(stored, wanted) {
			return false
		}
		stored.Metadata.Labels, stored.Endpoints, stored.Ports = wanted.GetMetadata().GetLabels(), wanted.GetEndpoints(), wanted.GetPorts()
		return true
	})
	if err != nil {
		return fmt.Errorf("write endpoint slice %s: %w", wanted.GetMetadata().GetName(), err)
	}
	return nil
}

func (s *Service) deleteSlice(ctx context.Context, k *scheme.Kind, key storage.Key) error {
	_, err := s.pipeline.Delete(ctx, self, &apiv1.DeleteRequest{
		Object: &apiv1.ObjectReference{Group: k.Group, Kind: k.Name, Namespace: key.Namespace, Name: key.Name},
	})
	if err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("delete endpoint slice %s: %w", key.Name, err)
	}
	return nil
}

func sameSlice(have, want *discoveryv1.EndpointSlice) bool {
	content := func(e *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			Metadata: &metav1.ObjectMeta{Labels: e.GetMetadata().GetLabels()}, Endpoints: e.GetEndpoints(), Ports: e.GetPorts(),
		}
	}
	return proto.Equal(content(have), content(want))
}

// kubernetesService returns the service to create. Its address is the first of the range, which no
// other service gets, because the gateways' certificates contain it.
func kubernetesService(address netip.Addr) *corev1.Service {
	return &corev1.Service{
		Metadata: &metav1.ObjectMeta{
			Namespace: core.KubernetesNamespace, Name: core.KubernetesService,
			Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"},
		},
		Spec: &corev1.ServiceSpec{
			ClusterIp: address.String(),
			Ports:     []*corev1.ServicePort{{Name: kubernetesPortName, Port: kubernetesPort, Protocol: core.ProtocolTCP}},
		},
	}
}

// kubernetesSlices returns the slices for gateways at these addresses, host:port each: one for each
// family and port, and named by both. Host names and loopback addresses are left out, because pods
// cannot connect to them.
func kubernetesSlices(gateways []string) []*discoveryv1.EndpointSlice {
	type group struct {
		family string
		port   uint16
	}
	backends := map[group][]*discoveryv1.Endpoint{}
	for _, text := range gateways {
		at, err := netip.ParseAddrPort(text)
		if err != nil || at.Addr().IsLoopback() || at.Addr().IsUnspecified() {
			continue
		}
		address := at.Addr().Unmap().String()
		g := group{discoverykinds.AddressTypeOf(address), at.Port()}
		backends[g] = append(backends[g], &discoveryv1.Endpoint{
			Addresses:  []string{address},
			Conditions: &discoveryv1.EndpointConditions{Ready: proto.Bool(true)},
		})
	}
	var out []*discoveryv1.EndpointSlice
	for g, endpoints := range backends {
		slices.SortFunc(endpoints, func(a, b *discoveryv1.Endpoint) int { return cmp.Compare(a.GetAddresses()[0], b.GetAddresses()[0]) })
		out = append(out, &discoveryv1.EndpointSlice{
			Metadata: &metav1.ObjectMeta{
				Namespace: core.KubernetesNamespace, Name: fmt.Sprintf("%s-%s-%d", core.KubernetesService, strings.ToLower(g.family), g.port),
				Labels: map[string]string{
					discoverykinds.LabelServiceName:            core.KubernetesService,
					discoverykinds.LabelEndpointSliceManagedBy: kubernetesManager,
				},
			},
			AddressType: g.family,
			Endpoints:   endpoints,
			Ports: []*discoveryv1.EndpointPort{{
				Name: proto.String(kubernetesPortName), Port: proto.Int32(int32(g.port)), Protocol: proto.String(core.ProtocolTCP),
			}},
		})
	}
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int {
		return cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName())
	})
	return out
}
