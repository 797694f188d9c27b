package endpoints

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// auditInterval is how often cluster IPs and node ports are looked over.
const auditInterval = 5 * time.Minute

// addresses watches over what the apiserver allocates in one transaction with the service: only a
// damaged or partly restored store can hold a service without its cluster IP, or two with the same
// address or port. What to do about that is a person's to decide, since every repair cuts
// connections of clients; so it is reported, on the services concerned.
type addresses struct {
	services *client.Informer[*corev1.Service]
	events   *events.Recorder
}

func (a *addresses) run(ctx context.Context) error {
	tick := time.NewTicker(auditInterval)
	defer tick.Stop()
	for {
		for _, f := range audit(a.services.List()) {
			a.events.Event(f.service, events.Warning, f.reason, "%s", f.message)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// finding is what is wrong with one service.
type finding struct {
	service         *corev1.Service
	reason, message string
}

// audit finds services without a cluster IP, and, of those that share an address or a node port,
// all but the oldest.
func audit(services []*corev1.Service) []finding {
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b *corev1.Service) int {
		x, y := a.GetMetadata(), b.GetMetadata()
		return cmp.Or(x.GetCreationTimestamp().AsTime().Compare(y.GetCreationTimestamp().AsTime()),
			strings.Compare(client.KeyOf(a).String(), client.KeyOf(b).String()))
	})
	type port struct {
		number   int32
		protocol string
	}
	var found []finding
	addresses, ports := map[string]*corev1.Service{}, map[port]*corev1.Service{}
	for _, s := range services {
		spec := s.GetSpec()
		if spec.GetType() == core.ServiceExternalName {
			continue
		}
		ips := spec.GetClusterIps()
		if len(ips) == 0 {
			ips = []string{spec.GetClusterIp()}
		}
		for _, ip := range ips {
			switch {
			case ip == core.ClusterIPNone:
			case ip == "":
				found = append(found, finding{s, "ClusterIPNotAllocated", "The service has no cluster IP; delete and create it to have one allocated"})
			case addresses[ip] != nil:
				found = append(found, finding{s, "ClusterIPAlreadyAllocated", "Cluster IP " + ip + " belongs to service " +
					client.KeyOf(addresses[ip]).String() + " as well; delete and create this one to have another allocated"})
			default:
				addresses[ip] = s
			}
		}
		for _, p := range spec.GetPorts() {
			if p.GetNodePort() == 0 {
				continue
			}
			at := port{p.GetNodePort(), protocolOf(p.GetProtocol())}
			if other := ports[at]; other != nil && other != s {
				found = append(found, finding{s, "PortAlreadyAllocated", "A node port of the service belongs to service " +
					client.KeyOf(other).String() + " as well; choose another"})
				continue
			}
			ports[at] = s
		}
	}
	return found
}
