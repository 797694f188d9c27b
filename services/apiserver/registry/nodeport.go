package registry

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/networking"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// nodePorts gives services their ports on every node, as clusterIPs gives them their cluster IPs:
// an allocation is a NodePort object, created and deleted in the transactions of the service.
type nodePorts struct {
	store  *storage.Store
	ports  ipalloc.PortRange
	kind   *scheme.Kind
	parent *scheme.Kind
}

func newNodePorts(store *storage.Store) *nodePorts {
	ports := kinds.Of(new(networkingv1.NodePort))
	services := kinds.Of(new(corev1.Service))
	return &nodePorts{store: store, ports: ipalloc.PortRange{First: core.MinNodePort, Last: core.MaxNodePort}, kind: ports, parent: services}
}

// allocate settles the node ports of a service that is created, or updated from old, and returns
// the writes that give it those it has not and give back those it no longer wants, the port of its
// health check included. A port that the client names must be free; for the others free ones are
// picked at random.
func (n *nodePorts) allocate(ctx context.Context, get storage.Reader, svc, old *corev1.Service) ([]storage.Write, error) {
	had, wanted := n.keys(old), n.keys(svc)
	var errs field.ErrorList
	for i, p := range svc.GetSpec().GetPorts() {
		if p.GetNodePort() != 0 || !core.NeedsNodePorts(svc) {
			continue
		}
		if p.NodePort = n.pick(p.GetProtocol(), wanted); p.NodePort == 0 {
			return nil, n.full()
		}
		wanted[n.key(p)] = i
	}
	if core.NeedsHealthCheckNodePort(svc) && svc.GetSpec().GetHealthCheckNodePort() == 0 {
		if svc.Spec.HealthCheckNodePort = n.pick(core.ProtocolTCP, wanted); svc.Spec.HealthCheckNodePort == 0 {
			return nil, n.full()
		}
		wanted[n.healthCheckKey(svc)] = healthCheck
	}
	var writes []storage.Write
	for key, i := range wanted {
		if _, kept := had[key]; kept {
			continue
		}
		stored, err := get(ctx, key)
		if err == nil {
			if !n.owns(svc, stored) {
				errs = append(errs, takenPort(svc, i))
			}
			continue
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return nil, storage.APIError(err)
		}
		b, err := Encode(n.kind, n.object(svc, key.Name))
		if err != nil {
			return nil, err
		}
		writes = append(writes, storage.Write{Key: key, Bytes: b})
	}
	if len(errs) > 0 {
		return nil, apierr.Invalid(n.parent, svc.GetMetadata().GetName(), errs)
	}
	for key := range wanted {
		delete(had, key)
	}
	released, err := n.releaseKeys(ctx, get, old, had)
	return append(writes, released...), err
}

// healthCheck stands for the index of the port that load balancers ask for the node's health.
const healthCheck = -1

func takenPort(svc *corev1.Service, i int) *field.Error {
	const why = "is allocated to another service already"
	if i == healthCheck {
		return field.Invalid(field.NewPath("spec", "healthCheckNodePort"), svc.GetSpec().GetHealthCheckNodePort(), why)
	}
	return field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), svc.GetSpec().GetPorts()[i].GetNodePort(), why)
}

func (n *nodePorts) full() error {
	return apierr.FailedPrecondition(apierr.ReasonNodePortsFull, n.ports.String(),
		"every node port of %s is allocated: delete services, or change the type of some to ClusterIP", n.ports)
}

// release returns the writes that release all of a service's ports.
func (n *nodePorts) release(ctx context.Context, get storage.Reader, svc *corev1.Service) ([]storage.Write, error) {
	return n.releaseKeys(ctx, get, svc, n.keys(svc))
}

func (n *nodePorts) releaseKeys(
	ctx context.Context, get storage.Reader, svc *corev1.Service, keys map[storage.Key]int,
) ([]storage.Write, error) {
	var writes []storage.Write
	for key := range keys {
		stored, err := get(ctx, key)
		switch {
		case errors.Is(err, storage.ErrNotFound):
		case err != nil:
			return nil, storage.APIError(err)
		case n.owns(svc, stored):
			writes = append(writes, storage.Write{Key: key, Delete: true, Expect: stored.Revision})
		}
	}
	return writes, nil
}

// keys names the allocations that a service has, or asks for, by its ports' numbers: each with the
// index of the port. What validation refuses is left out.
func (n *nodePorts) keys(svc *corev1.Service) map[storage.Key]int {
	out := map[storage.Key]int{}
	for i, p := range svc.GetSpec().GetPorts() {
		valid := p.GetProtocol() == core.ProtocolTCP || p.GetProtocol() == core.ProtocolUDP
		if valid && n.ports.Contains(p.GetNodePort()) {
			out[n.key(p)] = i
		}
	}
	if core.NeedsHealthCheckNodePort(svc) && n.ports.Contains(svc.GetSpec().GetHealthCheckNodePort()) {
		out[n.healthCheckKey(svc)] = healthCheck
	}
	return out
}

// pick returns a port that is free as far as the cache knows, 0 when there is none. When the cache
// is behind, the commit finds the port taken and the plan is made again.
func (n *nodePorts) pick(protocol string, picked map[storage.Key]int) int32 {
	for port := range n.ports.Candidates() {
		key := KeyOf(n.kind, "", networking.NodePortName(protocol, port))
		if _, mine := picked[key]; mine {
			continue
		}
		if _, taken := n.store.GetCached(key); !taken {
			return port
		}
	}
	return 0
}

func (n *nodePorts) owns(svc *corev1.Service, stored *storage.Object) bool {
	return stored.Meta().GetAnnotations()[ownerAnnotation] == svc.GetMetadata().GetUid()
}

func (n *nodePorts) key(p *corev1.ServicePort) storage.Key {
	return KeyOf(n.kind, "", networking.NodePortName(p.GetProtocol(), p.GetNodePort()))
}

func (n *nodePorts) healthCheckKey(svc *corev1.Service) storage.Key {
	return KeyOf(n.kind, "", networking.NodePortName(core.ProtocolTCP, svc.GetSpec().GetHealthCheckNodePort()))
}

func (n *nodePorts) object(svc *corev1.Service, name string) *networkingv1.NodePort {
	meta := svc.GetMetadata()
	return &networkingv1.NodePort{
		Metadata: &metav1.ObjectMeta{
			Name: name, Uid: uuid.NewString(), Generation: 1, CreationTimestamp: timestamppb.New(time.Now().Truncate(time.Second)),
			Annotations: map[string]string{ownerAnnotation: meta.GetUid()},
		},
		Spec: &networkingv1.NodePortSpec{
			ParentRef: &networkingv1.ParentReference{Resource: n.parent.Plural, Namespace: meta.GetNamespace(), Name: meta.GetName()},
		},
	}
}
