package apiserver

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

const clusterIPNone = "None"

// allocations gives services their cluster IPs. An allocation is an IPAddress object named by the address, created in the
// transaction that creates the service and deleted in the one that deletes it: etcd's comparison of keys, and nothing
// else, keeps two services from one address.
type allocations struct {
	store  *storage.Store
	cidr   netip.Prefix
	dns    netip.Addr
	kind   *kind.Kind
	parent *kind.Kind
}

func newAllocations(store *storage.Store, cidr netip.Prefix, dns netip.Addr) *allocations {
	addresses, _ := kind.ByGroupKind("networking.k8s.io", "IPAddress")
	services, _ := kind.ByGroupKind("", "Service")
	return &allocations{store: store, cidr: cidr, dns: dns, kind: addresses, parent: services}
}

// wantsAddress reports whether a service has a cluster IP.
func wantsAddress(svc *corev1.Service) bool {
	return svc != nil && svc.GetSpec().GetType() != "ExternalName" && svc.GetSpec().GetClusterIp() != clusterIPNone
}

// allocate settles the cluster IP of a service that is created, or updated from old, and returns the writes of the
// allocation. An address that the client names must be free; otherwise a free one is picked at random.
func (a *allocations) allocate(ctx context.Context, get reader, svc, old *corev1.Service) ([]storage.Write, error) {
	spec := svc.GetSpec()
	if spec == nil {
		return nil, nil // validation names the mistake
	}
	if old != nil && wantsAddress(old) {
		if wantsAddress(svc) {
			if spec.GetClusterIp() == "" { // left out means kept
				spec.ClusterIp, spec.ClusterIps = old.GetSpec().GetClusterIp(), old.GetSpec().GetClusterIps()
			}
			return nil, nil // validation refuses a change of the address
		}
		writes, err := a.release(ctx, get, old)
		if err != nil {
			return nil, err
		}
		if spec.GetType() == "ExternalName" {
			spec.ClusterIp, spec.ClusterIps = "", nil
		}
		return writes, nil
	}
	if !wantsAddress(svc) {
		if spec.GetClusterIp() == clusterIPNone {
			spec.ClusterIps = []string{clusterIPNone}
		}
		return nil, nil
	}
	addr, err := a.choose(ctx, get, svc)
	if err != nil || !addr.IsValid() {
		return nil, err
	}
	spec.ClusterIp, spec.ClusterIps = addr.String(), []string{addr.String()}
	b, err := encode(a.kind, a.object(svc, addr))
	if err != nil {
		return nil, err
	}
	return []storage.Write{{Key: a.key(addr), Bytes: b}}, nil
}

// choose returns the address that the service names, if it can have it, or a free one. It returns none when what the
// service names is not an address, which validation refuses.
func (a *allocations) choose(ctx context.Context, get reader, svc *corev1.Service) (netip.Addr, error) {
	path := field.NewPath("spec", "clusterIP")
	name := svc.GetMetadata().GetName()
	if want := svc.GetSpec().GetClusterIp(); want != "" {
		addr, err := netip.ParseAddr(want)
		if err != nil {
			return netip.Addr{}, nil
		}
		if !a.cidr.Contains(addr) {
			return netip.Addr{}, apierr.Invalid(a.parent, name, field.ErrorList{field.Invalid(path, want, "must be in the service CIDR "+a.cidr.String())})
		}
		if addr == a.dns {
			return netip.Addr{}, apierr.Invalid(a.parent, name, field.ErrorList{field.Invalid(path, want, "is the address that the nodes answer DNS on")})
		}
		if _, err := get(ctx, a.key(addr)); err == nil {
			return netip.Addr{}, apierr.Invalid(a.parent, name, field.ErrorList{field.Invalid(path, want, "is allocated to another service already")})
		} else if !errors.Is(err, storage.ErrNotFound) {
			return netip.Addr{}, storageError(err)
		}
		return addr, nil
	}
	for addr := range ipalloc.Candidates(a.cidr, a.dns) {
		// The cache may be behind; then the commit finds the address taken and the plan is made again.
		if _, taken := a.store.GetCached(a.key(addr)); !taken {
			return addr, nil
		}
	}
	return netip.Addr{}, apierr.FailedPrecondition("SERVICE_CIDR_FULL", a.cidr.String(), "every address of the service CIDR %s is allocated: delete services, or start the cluster with a larger range", a.cidr)
}

// release returns the writes that give a service's address back.
func (a *allocations) release(ctx context.Context, get reader, svc *corev1.Service) ([]storage.Write, error) {
	addr, err := netip.ParseAddr(svc.GetSpec().GetClusterIp())
	if err != nil || !wantsAddress(svc) {
		return nil, nil
	}
	stored, err := get(ctx, a.key(addr))
	if errors.Is(err, storage.ErrNotFound) {
		// Nothing to give back is believed only of a linearizable read: no comparison at the commit would tell.
		stored, err = a.store.Get(ctx, a.key(addr))
	}
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storageError(err)
	}
	if stored.Meta().GetAnnotations()[ownerAnnotation] != svc.GetMetadata().GetUid() {
		return nil, nil
	}
	return []storage.Write{{Key: stored.Key, Delete: true, Expect: stored.Revision}}, nil
}

// ownerAnnotation holds the uid of the service that an address is allocated to.
const ownerAnnotation = "xebec.io/service-uid"

func (a *allocations) key(addr netip.Addr) storage.Key { return keyOf(a.kind, "", addr.String()) }

func (a *allocations) object(svc *corev1.Service, addr netip.Addr) *networkingv1.IPAddress {
	meta := svc.GetMetadata()
	return &networkingv1.IPAddress{
		Metadata: &metav1.ObjectMeta{
			Name: addr.String(), Uid: uuid.NewString(), Generation: 1, CreationTimestamp: timestamppb.New(time.Now().Truncate(time.Second)),
			Annotations: map[string]string{ownerAnnotation: meta.GetUid()},
		},
		Spec: &networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: a.parent.Plural, Namespace: meta.GetNamespace(), Name: meta.GetName()}},
	}
}
