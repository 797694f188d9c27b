package registry

import (
	"context"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// serviceStrategy gives services their cluster IPs and node ports.
type serviceStrategy struct {
	Generic
	addresses *clusterIPs
	ports     *nodePorts
}

func newServiceStrategy(cfg Config) serviceStrategy {
	return serviceStrategy{
		Generic{kinds.Of(new(corev1.Service))}, newClusterIPs(cfg.Store, cfg.ServiceCIDRs, cfg.ClusterDNS), newNodePorts(cfg.Store),
	}
}

// Allocate allocates missing addresses and ports, and releases those that the service no longer
// has.
func (s serviceStrategy) Allocate(ctx context.Context, get storage.Reader, o, old scheme.Object) ([]storage.Write, error) {
	svc := o.(*corev1.Service)
	before, _ := old.(*corev1.Service)
	addresses, err := s.addresses.allocate(ctx, get, svc, before)
	if err != nil {
		return nil, err
	}
	ports, err := s.ports.allocate(ctx, get, svc, before)
	return append(addresses, ports...), err
}

// Release returns the service's addresses and ports.
func (s serviceStrategy) Release(ctx context.Context, get storage.Reader, o scheme.Object) ([]storage.Write, error) {
	svc := o.(*corev1.Service)
	addresses, err := s.addresses.release(ctx, get, svc)
	if err != nil {
		return nil, err
	}
	ports, err := s.ports.release(ctx, get, svc)
	return append(addresses, ports...), err
}
