package registry

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

const clusterIPNone = "None"

// clusterIPs gives services their cluster IPs, of one family or two. An allocation is an IPAddress
// object named by the address, created in the transaction that creates the service and deleted in
// the one that deletes it. etcd's comparison of keys ensures that no two services get one address.
type clusterIPs struct {
	store *storage.Store
	// cidrs are the service CIDRs, of different families; services get addresses of the first unless
	// they ask for more.
	cidrs []netip.Prefix
	dns   netip.Addr
	// kubernetes is the address of the service default/kubernetes.
	kubernetes netip.Addr
	kind       *scheme.Kind
	parent     *scheme.Kind
}

func newClusterIPs(store *storage.Store, cidrs []netip.Prefix, dns netip.Addr) *clusterIPs {
	addresses := kinds.Of(new(networkingv1.IPAddress))
	services := kinds.Of(new(corev1.Service))
	return &clusterIPs{store: store, cidrs: cidrs, dns: dns, kubernetes: ipalloc.First(cidrs[0]), kind: addresses, parent: services}
}

// isKubernetes tells whether a service is the one by which pods reach the cluster.
func isKubernetes(svc *corev1.Service) bool {
	return svc.GetMetadata().GetNamespace() == core.KubernetesNamespace && svc.GetMetadata().GetName() == core.KubernetesService
}

// wantsAddress reports whether a service has a cluster IP.
func wantsAddress(svc *corev1.Service) bool {
	return svc != nil && svc.GetSpec().GetType() != "ExternalName" && svc.GetSpec().GetClusterIp() != clusterIPNone
}

// families are those that the cluster's services can have.
func (a *clusterIPs) families() []string {
	var out []string
	for _, c := range a.cidrs {
		out = append(out, core.FamilyOf(c.Addr().String()))
	}
	return out
}

// cidrOf returns the service CIDR of a family.
func (a *clusterIPs) cidrOf(family string) (netip.Prefix, bool) {
	for _, c := range a.cidrs {
		if core.FamilyOf(c.Addr().String()) == family {
			return c, true
		}
	}
	return netip.Prefix{}, false
}

// allocate settles the families and the cluster IPs of a service that is created, or updated from
// old, and returns the writes of the allocations. An address that the client names must be free;
// otherwise a free one is picked at random.
func (a *clusterIPs) allocate(ctx context.Context, get storage.Reader, svc, old *corev1.Service) ([]storage.Write, error) {
	spec := svc.GetSpec()
	if spec == nil {
		return nil, nil // validation names the mistake
	}
	if errs := core.SettleFamilies(spec, old.GetSpec(), a.families()); len(errs) > 0 {
		return nil, apierr.Invalid(a.parent, svc.GetMetadata().GetName(), errs)
	}
	had := addressesOf(old)
	switch {
	case wantsAddress(svc):
		if len(spec.GetClusterIps()) > len(spec.GetIpFamilies()) || len(spec.GetIpFamilies()) > 2 {
			return nil, nil // validation names the mistake
		}
	case spec.GetClusterIp() == clusterIPNone:
		if len(spec.GetClusterIps()) == 0 {
			spec.ClusterIps = []string{clusterIPNone}
		}
	case spec.GetType() == "ExternalName" && wantsAddress(old):
		spec.ClusterIp, spec.ClusterIps = "", nil
	}
	var writes []storage.Write
	if wantsAddress(svc) {
		// A service whose first address changes keeps no other address. Validation refuses the change,
		// unless the service was of type ExternalName.
		for i, family := range spec.GetIpFamilies() {
			addr, write, err := a.allocateOne(ctx, get, svc, i, family, had)
			if err != nil {
				return nil, err
			}
			if !addr.IsValid() {
				return nil, nil // validation names the mistake
			}
			if i == len(spec.GetClusterIps()) {
				spec.ClusterIps = append(slices.Clip(spec.GetClusterIps()), addr.String())
			}
			writes = append(writes, write...)
		}
		spec.ClusterIp = cmp.Or(spec.GetClusterIp(), spec.GetClusterIps()[0])
	}
	now := addressesOf(svc)
	for _, addr := range had {
		if slices.Contains(now, addr) {
			continue
		}
		write, err := a.releaseOne(ctx, get, old, addr)
		if err != nil {
			return nil, err
		}
		writes = append(writes, write...)
	}
	return writes, nil
}

// allocateOne settles the i-th address of a service: one that it has, or names, or a free one of
// the family. It returns the write of the allocation, unless the service has the address already,
// and no address when the service names something that is not an address.
func (a *clusterIPs) allocateOne(
	ctx context.Context, get storage.Reader, svc *corev1.Service, i int, family string, had []netip.Addr,
) (netip.Addr, []storage.Write, error) {
	want := ""
	if ips := svc.GetSpec().GetClusterIps(); i < len(ips) {
		want = ips[i]
	}
	addr, err := netip.ParseAddr(want)
	if want != "" && err != nil {
		return netip.Addr{}, nil, nil //nolint:nilerr // validation refuses it
	}
	if slices.Contains(had, addr) {
		return addr, nil, nil
	}
	addr, err = a.choose(ctx, get, svc, i, family)
	if err != nil || !addr.IsValid() {
		return addr, nil, err
	}
	b, err := Encode(a.kind, a.object(svc, addr))
	if err != nil {
		return addr, nil, err
	}
	return addr, []storage.Write{{Key: a.key(addr), Bytes: b}}, nil
}

// addressesOf returns the cluster IPs that a service has.
func addressesOf(svc *corev1.Service) []netip.Addr {
	if !wantsAddress(svc) {
		return nil
	}
	texts := svc.GetSpec().GetClusterIps()
	if len(texts) == 0 {
		texts = []string{svc.GetSpec().GetClusterIp()}
	}
	var out []netip.Addr
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			out = append(out, addr)
		}
	}
	return out
}

// choose returns the address that the service names in the i-th place, if it can have it, or a free
// one of the family. It returns none when validation will refuse the service.
func (a *clusterIPs) choose(ctx context.Context, get storage.Reader, svc *corev1.Service, i int, family string) (netip.Addr, error) {
	cidr, ok := a.cidrOf(family)
	if !ok {
		return netip.Addr{}, nil
	}
	name := svc.GetMetadata().GetName()
	if ips := svc.GetSpec().GetClusterIps(); i < len(ips) {
		want, path := ips[i], field.NewPath("spec", "clusterIP")
		if i > 0 {
			path = field.NewPath("spec", "clusterIPs").Index(i)
		}
		addr, err := netip.ParseAddr(want)
		if err != nil || core.FamilyOf(want) != family {
			return netip.Addr{}, nil
		}
		refuse := func(why string) (netip.Addr, error) {
			return netip.Addr{}, apierr.Invalid(a.parent, name, field.ErrorList{field.Invalid(path, want, why)})
		}
		if !cidr.Contains(addr) {
			return refuse("must be in the service CIDR " + cidr.String())
		}
		if addr == a.dns {
			return refuse("is the address that the nodes answer DNS on")
		}
		if addr == a.kubernetes && !isKubernetes(svc) {
			return refuse("is the address of service default/kubernetes")
		}
		if _, err := get(ctx, a.key(addr)); err == nil {
			return refuse("is allocated to another service already")
		} else if !errors.Is(err, storage.ErrNotFound) {
			return netip.Addr{}, storage.APIError(err)
		}
		return addr, nil
	}
	for addr := range ipalloc.Candidates(cidr, a.dns, a.kubernetes) {
		// The cache may be behind; then the commit finds the address taken and the plan is made again.
		if _, taken := a.store.GetCached(a.key(addr)); !taken {
			return addr, nil
		}
	}
	return netip.Addr{}, apierr.FailedPrecondition(apierr.ReasonServiceCIDRFull, cidr.String(),
		"every address of the service CIDR %s is allocated: delete services, or start the cluster with a larger range", cidr)
}

// release returns the writes that release a service's addresses.
func (a *clusterIPs) release(ctx context.Context, get storage.Reader, svc *corev1.Service) ([]storage.Write, error) {
	var writes []storage.Write
	for _, addr := range addressesOf(svc) {
		write, err := a.releaseOne(ctx, get, svc, addr)
		if err != nil {
			return nil, err
		}
		writes = append(writes, write...)
	}
	return writes, nil
}

func (a *clusterIPs) releaseOne(ctx context.Context, get storage.Reader, svc *corev1.Service, addr netip.Addr) ([]storage.Write, error) {
	stored, err := get(ctx, a.key(addr))
	if errors.Is(err, storage.ErrNotFound) {
		// Only a linearizable read proves that there is nothing to release: the commit compares no key
		// that does not exist.
		stored, err = a.store.Get(ctx, a.key(addr))
	}
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storage.APIError(err)
	}
	if stored.Meta().GetAnnotations()[ownerAnnotation] != svc.GetMetadata().GetUid() {
		return nil, nil
	}
	return []storage.Write{{Key: stored.Key, Delete: true, Expect: stored.Revision}}, nil
}

// ownerAnnotation holds the uid of the service that an address is allocated to.
const ownerAnnotation = "xebec.io/service-uid"

func (a *clusterIPs) key(addr netip.Addr) storage.Key { return KeyOf(a.kind, "", addr.String()) }

func (a *clusterIPs) object(svc *corev1.Service, addr netip.Addr) *networkingv1.IPAddress {
	meta := svc.GetMetadata()
	return &networkingv1.IPAddress{
		Metadata: &metav1.ObjectMeta{
			Name: addr.String(), Uid: uuid.NewString(), Generation: 1, CreationTimestamp: timestamppb.New(time.Now().Truncate(time.Second)),
			Annotations: map[string]string{ownerAnnotation: meta.GetUid()},
		},
		Spec: &networkingv1.IPAddressSpec{
			ParentRef: &networkingv1.ParentReference{Resource: a.parent.Plural, Namespace: meta.GetNamespace(), Name: meta.GetName()},
		},
	}
}
