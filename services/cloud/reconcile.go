package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

const (
	// labelManagedBy tells IPAddress objects of load balancers from those of cluster IPs; the name is Kubernetes'.
	labelManagedBy = "ipaddress.kubernetes.io/managed-by"
	managedBy      = "xebec-cloud"
	// annotationOwner holds the uid of the service that has an address.
	annotationOwner = "xebec.io/service-uid"
	// annotationPool on a service names the pool that its address is to be from.
	annotationPool = "xebec.io/load-balancer-pool"

	// behindPause is how long a service waits for the informer to catch up with what was written, at most.
	behindPause = 100 * time.Millisecond
	// retryDenied is how often a wish that could not be granted is looked at again, besides when an address comes free.
	retryDenied = time.Minute
)

// reconciler gives one service at a time the address that it should have. It has one worker.
type reconciler struct {
	client    *client.Client
	services  *client.Informer[*corev1.Service]
	addresses *client.Informer[*networkingv1.IPAddress]
	nodes     *client.Informer[*corev1.Node]
	events    *events.Recorder
	pools     []pool
	class     string
	metrics   *poolMetrics

	// written is the revision of the last write for a service. While the informer is behind it, the service seems to have
	// an address less, or more, than it has.
	written map[controller.Key]int64
}

// serves tells whether the service is to have an address from here.
func (r *reconciler) serves(svc *corev1.Service) bool {
	spec := svc.GetSpec()
	return spec.GetType() == kind.ServiceLoadBalancer && (spec.LoadBalancerClass == nil || spec.GetLoadBalancerClass() == r.class)
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	if r.behind(key) {
		return controller.Result{RequeueAfter: behindPause}, nil
	}
	defer r.count()
	svc, _ := r.services.Get(key.Namespace, key.Name)
	held := r.addresses.ByIndex(byService, key.String())
	keep, release := r.split(svc, held)
	if len(release) > 0 {
		// The informer of services may be behind that of addresses, and nothing at the commit would tell that a service is
		// there after all.
		var err error
		if svc, err = client.Get[*corev1.Service](ctx, r.client, key.Namespace, key.Name); apierr.IsNotFound(err) {
			svc = nil
		} else if err != nil {
			return controller.Result{}, fmt.Errorf("read service %s: %w", key, err)
		}
		keep, release = r.split(svc, held)
	}
	if svc == nil || !r.serves(svc) {
		return controller.Result{}, r.write(ctx, key, svc, nil, nil, release)
	}
	if keep != nil {
		return controller.Result{}, r.write(ctx, key, svc, keep, nil, release)
	}
	err := r.allocate(ctx, key, svc, release)
	if denied := (*deniedError)(nil); errors.As(err, &denied) {
		r.metrics.failures.Inc()
		r.events.Event(svc, events.Warning, "SyncLoadBalancerFailed", "No address: %s", denied.why)
		// What it has stays until the wish is granted; what a former service by its name had does not.
		former := slices.DeleteFunc(release, func(a *networkingv1.IPAddress) bool { return owns(svc, a) })
		return controller.Result{RequeueAfter: retryDenied}, r.write(ctx, key, nil, nil, nil, former)
	}
	return controller.Result{}, err
}

// split tells which of the addresses that are allocated in the service's name it keeps, nil for none, and which are to be
// given back. svc is nil when there is no such service any more.
func (r *reconciler) split(svc *corev1.Service, held []*networkingv1.IPAddress) (keep *networkingv1.IPAddress, release []*networkingv1.IPAddress) {
	slices.SortFunc(held, func(a, b *networkingv1.IPAddress) int {
		return strings.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName())
	})
	for _, a := range held {
		if svc != nil && r.serves(svc) && owns(svc, a) && keep == nil && r.suits(svc, a.GetMetadata().GetName()) {
			keep = a
		} else {
			release = append(release, a)
		}
	}
	return keep, release
}

func owns(svc *corev1.Service, a *networkingv1.IPAddress) bool {
	return a.GetMetadata().GetAnnotations()[annotationOwner] == svc.GetMetadata().GetUid()
}

// suits tells whether an address that the service has is the one, or of the pool, that it asks for. Without a wish it
// keeps what it has, even if no pool has that address any more.
func (r *reconciler) suits(svc *corev1.Service, name string) bool {
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	if wish := svc.GetSpec().GetLoadBalancerIp(); wish != "" {
		return name == wish
	}
	wish := svc.GetMetadata().GetAnnotations()[annotationPool]
	return wish == "" || slices.ContainsFunc(r.pools, func(p pool) bool { return p.name == wish && p.contains(addr) })
}

// deniedError says why a service gets no address, to whoever made the service or the pools.
type deniedError struct{ why string }

func (e *deniedError) Error() string { return e.why }

func denied(format string, args ...any) error { return &deniedError{fmt.Sprintf(format, args...)} }

// allocate gives the service a new address, and gives others back in the same transaction.
func (r *reconciler) allocate(ctx context.Context, key controller.Key, svc *corev1.Service, release []*networkingv1.IPAddress) error {
	candidates, err := r.candidates(svc)
	if err != nil {
		return err
	}
	for _, addr := range candidates {
		if _, taken := r.addresses.Get("", addr.String()); taken {
			continue
		}
		err := r.write(ctx, key, svc, nil, allocation(svc, addr), release)
		if apierr.IsAlreadyExists(err) {
			continue // an allocation that the informer does not show yet, or one that is not a load balancer's
		}
		if err == nil {
			r.events.Event(svc, events.Normal, "EnsuredLoadBalancer", "Allocated address %s", addr)
		}
		return err
	}
	if wish := svc.GetSpec().GetLoadBalancerIp(); wish != "" {
		return denied("spec.loadBalancerIP %s is allocated already", wish)
	}
	return denied("every address of pool %q is allocated: delete load balancers, or give the pool more addresses", poolOf(svc))
}

func poolOf(svc *corev1.Service) string {
	if wish := svc.GetMetadata().GetAnnotations()[annotationPool]; wish != "" {
		return wish
	}
	return defaultPool
}

// candidates returns the addresses that the service may have, free or not, in the order in which to try them.
func (r *reconciler) candidates(svc *corev1.Service) ([]netip.Addr, error) {
	if len(r.pools) == 0 {
		return nil, denied("no pool of addresses is configured: set pools in the configuration of the cloud service")
	}
	if wish := svc.GetSpec().GetLoadBalancerIp(); wish != "" {
		addr, err := netip.ParseAddr(wish)
		if err != nil {
			return nil, denied("spec.loadBalancerIP %q is not an address", wish)
		}
		if !slices.ContainsFunc(r.pools, func(p pool) bool { return p.contains(addr) }) {
			return nil, denied("spec.loadBalancerIP %s is in no pool; there are %s", addr, r.describe())
		}
		return []netip.Addr{addr}, nil
	}
	name := poolOf(svc)
	i := slices.IndexFunc(r.pools, func(p pool) bool { return p.name == name })
	if i < 0 {
		return nil, denied("there is no pool %q; there are %s", name, r.describe())
	}
	nodes := r.nodeAddresses()
	var out []netip.Addr
	for addr := range r.pools[i].addresses() {
		if !nodes[addr] {
			out = append(out, addr)
		}
	}
	return out, nil
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
		Spec: &networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: m.GetNamespace(), Name: m.GetName()}},
	}
}

// write makes the service's status show the address that it keeps or gets, and no other of ours, and changes allocations
// accordingly, in one transaction. It writes nothing when all is as it should be.
func (r *reconciler) write(ctx context.Context, key controller.Key, svc *corev1.Service, keep, add *networkingv1.IPAddress, release []*networkingv1.IPAddress) error {
	var ops []client.Operation
	if add != nil {
		ops = append(ops, client.OpCreate(add))
		keep = add
	}
	for _, a := range release {
		m := a.GetMetadata()
		ops = append(ops, client.OpDelete(kind.Of(a), "", m.GetName(), client.IfUID(m.GetUid())))
	}
	if svc != nil {
		if ingress := r.ingress(svc, keep, release); !slices.EqualFunc(ingress, svc.GetStatus().GetLoadBalancer().GetIngress(), func(a, b *corev1.LoadBalancerIngress) bool { return proto.Equal(a, b) }) {
			now := client.Clone(svc)
			if now.Status == nil {
				now.Status = &corev1.ServiceStatus{}
			}
			now.Status.LoadBalancer = &corev1.LoadBalancerStatus{Ingress: ingress}
			ops = append(ops, client.OpUpdateStatus(now))
		}
	}
	if len(ops) == 0 {
		return nil
	}
	done, err := client.Transact(ctx, r.client, ops...)
	if err != nil {
		return fmt.Errorf("write addresses of service %s: %w", key, err)
	}
	if revision, err := strconv.ParseInt(done.Revision, 10, 64); err == nil && (add != nil || len(release) > 0) {
		r.written[key] = revision
	}
	return nil
}

// ingress is what the status of a service should show. What others wrote into the status of a service that is not served
// from here is left alone.
func (r *reconciler) ingress(svc *corev1.Service, keep *networkingv1.IPAddress, release []*networkingv1.IPAddress) []*corev1.LoadBalancerIngress {
	if keep != nil {
		return []*corev1.LoadBalancerIngress{{Ip: keep.GetMetadata().GetName(), IpMode: proto.String("VIP")}}
	}
	return slices.DeleteFunc(slices.Clone(svc.GetStatus().GetLoadBalancer().GetIngress()), func(in *corev1.LoadBalancerIngress) bool {
		return slices.ContainsFunc(release, func(a *networkingv1.IPAddress) bool { return a.GetMetadata().GetName() == in.GetIp() })
	})
}

// behind reports whether the informer lacks a write of the service's allocations.
func (r *reconciler) behind(key controller.Key) bool {
	want, ok := r.written[key]
	if !ok {
		return false
	}
	seen, err := strconv.ParseInt(r.addresses.Revision(), 10, 64)
	if err != nil || seen < want {
		return true
	}
	delete(r.written, key)
	return false
}

// offer has the services looked at that wait for an address: one came free.
func (r *reconciler) offer(c *controller.Controller) {
	for _, svc := range r.services.List() {
		if r.serves(svc) && len(svc.GetStatus().GetLoadBalancer().GetIngress()) == 0 {
			c.Enqueue(client.KeyOf(svc))
		}
	}
}

// count tells how full the pools are.
func (r *reconciler) count() {
	all := r.addresses.List()
	for _, p := range r.pools {
		n := 0
		for _, a := range all {
			if addr, err := netip.ParseAddr(a.GetMetadata().GetName()); err == nil && p.contains(addr) {
				n++
			}
		}
		r.metrics.allocated.WithLabelValues(p.name).Set(float64(n))
	}
}
