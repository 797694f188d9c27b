package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// annotationPool on a service names the pool of its addresses.
const annotationPool = "xebec.io/load-balancer-pool"

// deniedError says why a service gets no address, in a sentence for the event.
type deniedError struct{ why string }

func (e *deniedError) Error() string { return e.why }

func denied(format string, args ...any) error { return &deniedError{fmt.Sprintf(format, args...)} }

// familiesOf are the families that a service is to have addresses of, in its order. One that is
// older than its families has those of its cluster IPs.
func familiesOf(svc *corev1.Service) []string {
	out := svc.GetSpec().GetIpFamilies()
	if len(out) == 0 {
		for _, ip := range svc.GetSpec().GetClusterIps() {
			if f := core.FamilyOf(ip); f != "" {
				out = append(out, f)
			}
		}
	}
	if len(out) == 0 {
		return families[:1]
	}
	return out
}

// suits tells whether an address that the service has is the one, or of the pool, that it asks for.
// Without a wish it keeps what it has, even if no pool has that address any more.
func (r *reconciler) suits(svc *corev1.Service, addr netip.Addr) bool {
	if wish := svc.GetSpec().GetLoadBalancerIp(); core.FamilyOf(wish) == familyOf(addr) {
		return netip.MustParseAddr(wish) == addr
	}
	wish := svc.GetMetadata().GetAnnotations()[annotationPool]
	return wish == "" || slices.ContainsFunc(r.pools, func(p pool) bool { return p.name == wish && p.contains(addr) })
}

// allocate gives the service the addresses that it lacks, as far as there are any, and gives others
// back in the same transaction. Of a family whose wish is denied the service keeps what it has.
// With RequireDualStack it gets nothing new until it can have all. The error is of what could not
// be written; denials are returned beside it.
func (r *reconciler) allocate(ctx context.Context, key controller.Key, svc *corev1.Service, has holding) (denials []error, err error) {
	taken := map[netip.Addr]bool{} // which the informer does not show
	for {
		add, now := map[string]netip.Addr{}, has.clone()
		denials = nil
		for _, family := range familiesOf(svc) {
			if now.keep[family] != nil {
				continue
			}
			if add[family], err = r.choose(svc, family, taken); err != nil {
				delete(add, family)
				denials = append(denials, err)
				now.keepMeanwhile(svc, family)
			}
		}
		if len(denials) > 0 && len(add) > 0 && svc.GetSpec().GetIpFamilyPolicy() == core.RequireDualStack {
			for family := range add {
				now.keepMeanwhile(svc, family)
			}
			clear(add)
			denials = append(denials, denied("spec.ipFamilyPolicy %s asks for an address of either family, or none", core.RequireDualStack))
		}
		var created []*networkingv1.IPAddress
		for family, addr := range add {
			a := allocation(svc, addr)
			now.keep[family] = a
			created = append(created, a)
		}
		err = r.write(ctx, key, svc, now, created...)
		if !apierr.IsAlreadyExists(err) {
			return denials, err
		}
		// An allocation that the informer does not show yet, or one that is not a load balancer's.
		known := len(taken)
		for _, addr := range add {
			_, missing := client.Get[*networkingv1.IPAddress](ctx, r.client, "", addr.String())
			if missing != nil && !apierr.IsNotFound(missing) {
				return denials, fmt.Errorf("read who has %s: %w", addr, missing)
			}
			if missing == nil {
				taken[addr] = true
			}
		}
		if len(taken) == known {
			return denials, err
		}
	}
}

// choose returns a free address of the family for the service, or why there is none.
func (r *reconciler) choose(svc *corev1.Service, family string, taken map[netip.Addr]bool) (netip.Addr, error) {
	if len(r.pools) == 0 {
		return netip.Addr{}, denied("no pool of addresses is configured: set pools in the configuration of the cloud service")
	}
	free := func(addr netip.Addr) bool {
		_, known := r.addresses.Get("", addr.String())
		return !known && !taken[addr]
	}
	if text := svc.GetSpec().GetLoadBalancerIp(); text != "" {
		wish, err := r.wish(svc, text)
		if err != nil {
			return netip.Addr{}, err
		}
		if familyOf(wish) == family {
			if !free(wish) {
				return netip.Addr{}, denied("spec.loadBalancerIP %s is allocated already", wish)
			}
			return wish, nil
		}
	}
	name := poolOf(svc)
	i := slices.IndexFunc(r.pools, func(p pool) bool { return p.name == name })
	switch {
	case i < 0:
		return netip.Addr{}, denied("there is no pool %q; there are %s", name, r.describe())
	case !r.pools[i].has(family):
		return netip.Addr{}, denied("pool %q has no %s addresses; there are %s", name, family, r.describe())
	}
	nodes := r.nodeAddresses()
	for addr := range r.pools[i].addresses(family) {
		if !nodes[addr] && free(addr) {
			return addr, nil
		}
	}
	return netip.Addr{}, denied("every %s address of pool %q is allocated: delete load balancers, or give the pool more addresses",
		family, name)
}

// wish returns the address that the service asks for.
func (r *reconciler) wish(svc *corev1.Service, text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil || addr.Is4In6() || addr.Zone() != "":
		return addr, denied("spec.loadBalancerIP %q is not an address", text)
	case !slices.Contains(familiesOf(svc), familyOf(addr)):
		return addr, denied("spec.loadBalancerIP %s is not of the service's families: spec.ipFamilies has %s",
			addr, strings.Join(familiesOf(svc), ", "))
	case !slices.ContainsFunc(r.pools, func(p pool) bool { return p.contains(addr) }):
		return addr, denied("spec.loadBalancerIP %s is in no pool; there are %s", addr, r.describe())
	}
	return addr, nil
}

func poolOf(svc *corev1.Service) string {
	if wish := svc.GetMetadata().GetAnnotations()[annotationPool]; wish != "" {
		return wish
	}
	return defaultPool
}

// nodeAddresses are those that machines have already, should a pool hold them by mistake.
func (r *reconciler) nodeAddresses() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, n := range r.nodes.List() {
		for _, a := range n.GetStatus().GetAddresses() {
			if addr, err := netip.ParseAddr(a.GetAddress()); err == nil {
				out[addr] = true
			}
		}
	}
	return out
}

// describe lists the pools for people.
func (r *reconciler) describe() string {
	var out []string
	for _, p := range r.pools {
		for _, c := range p.ranges {
			out = append(out, p.name+"="+c.String())
		}
	}
	return strings.Join(out, ", ")
}

func allocation(svc *corev1.Service, addr netip.Addr) *networkingv1.IPAddress {
	m := svc.GetMetadata()
	return &networkingv1.IPAddress{
		Metadata: &metav1.ObjectMeta{
			Name: addr.String(), Labels: map[string]string{labelManagedBy: managedBy}, Annotations: map[string]string{annotationOwner: m.GetUid()},
		},
		Spec: &networkingv1.IPAddressSpec{
			ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: m.GetNamespace(), Name: m.GetName()},
		},
	}
}

// why joins denials for people.
func why(denials []error) string {
	return strings.ReplaceAll(errors.Join(denials...).Error(), "\n", "; ")
}
