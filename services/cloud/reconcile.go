package cloud

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

const (
	// labelManagedBy tells IPAddress objects of load balancers from those of cluster IPs; the name is
	// Kubernetes'.
	labelManagedBy = "ipaddress.kubernetes.io/managed-by"
	managedBy      = "xebec-cloud"
	// annotationOwner holds the uid of the service that has an address.
	annotationOwner = "xebec.io/service-uid"

	// retryDenied is how often a wish that could not be granted is looked at again, besides when an
	// address comes free.
	retryDenied = time.Minute
)

// reconciler gives one service at a time the addresses that it should have. It has one worker.
type reconciler struct {
	client    *client.Client
	services  *client.Informer[*corev1.Service]
	addresses *client.Informer[*networkingv1.IPAddress]
	nodes     *client.Informer[*corev1.Node]
	events    *events.Recorder
	pools     []pool
	class     string
	metrics   *poolMetrics

	// written has the last writes of services' addresses.
	written controller.Written
}

// holding is what is allocated in a service's name.
type holding struct {
	keep    map[string]*networkingv1.IPAddress // by family
	release []*networkingv1.IPAddress          // returned to the pool
}

func (h holding) clone() holding { return holding{maps.Clone(h.keep), slices.Clone(h.release)} }

// keepMeanwhile keeps an address of the family that the service has and that is not what it asks
// for.
func (h *holding) keepMeanwhile(svc *corev1.Service, family string) {
	i := slices.IndexFunc(h.release, func(a *networkingv1.IPAddress) bool {
		return owns(svc, a) && core.FamilyOf(a.GetMetadata().GetName()) == family
	})
	if i >= 0 {
		h.keep[family] = h.release[i]
		h.release = slices.Delete(h.release, i, i+1)
	}
}

// serves tells whether the service is to have addresses from here.
func (r *reconciler) serves(svc *corev1.Service) bool {
	spec := svc.GetSpec()
	return spec.GetType() == core.ServiceLoadBalancer && (spec.LoadBalancerClass == nil || spec.GetLoadBalancerClass() == r.class)
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	if r.written.IsBehind(key, r.addresses.Revision()) {
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	defer r.count()
	svc, _ := r.services.Get(key.Namespace, key.Name)
	held := r.addresses.ByIndex(byService, key.String())
	has := r.split(svc, held)
	if len(has.release) > 0 {
		// The informer of services may be behind that of addresses, and nothing at the commit would tell
		// that a service is there after all.
		var err error
		if svc, err = client.Get[*corev1.Service](ctx, r.client, key.Namespace, key.Name); apierr.IsNotFound(err) {
			svc = nil
		} else if err != nil {
			return controller.Result{}, fmt.Errorf("read service %s: %w", key, err)
		}
		has = r.split(svc, held)
	}
	if svc == nil || !r.serves(svc) {
		return controller.Result{}, r.write(ctx, key, svc, has)
	}
	denials, err := r.allocate(ctx, key, svc, has)
	if len(denials) > 0 {
		r.metrics.failures.Inc()
		r.events.Event(svc, events.Warning, "SyncLoadBalancerFailed", "No address: %s", why(denials))
		return controller.Result{RequeueAfter: retryDenied}, err
	}
	return controller.Result{}, err
}

// split returns the addresses of the service that it keeps, and those that it gives back. svc
// is nil when there is no such service any more.
func (r *reconciler) split(svc *corev1.Service, held []*networkingv1.IPAddress) holding {
	slices.SortFunc(held, func(a, b *networkingv1.IPAddress) int {
		return strings.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName())
	})
	h := holding{keep: map[string]*networkingv1.IPAddress{}}
	for _, a := range held {
		addr, err := netip.ParseAddr(a.GetMetadata().GetName())
		if err == nil && svc != nil && r.serves(svc) && owns(svc, a) && h.keep[familyOf(addr)] == nil &&
			slices.Contains(familiesOf(svc), familyOf(addr)) && r.suits(svc, addr) {
			h.keep[familyOf(addr)] = a
		} else {
			h.release = append(h.release, a)
		}
	}
	return h
}

func owns(svc *corev1.Service, a *networkingv1.IPAddress) bool {
	return a.GetMetadata().GetAnnotations()[annotationOwner] == svc.GetMetadata().GetUid()
}

// write makes the service's status show the addresses that it keeps, and no other of ours, and
// changes allocations accordingly, in one transaction: those created are among what is kept. It
// writes nothing when all is as it should be. svc is nil when there is no such service.
func (r *reconciler) write(
	ctx context.Context, key controller.Key, svc *corev1.Service, has holding, created ...*networkingv1.IPAddress,
) error {
	var ops []client.Operation
	for _, a := range created {
		ops = append(ops, client.OpCreate(a))
	}
	for _, a := range has.release {
		m := a.GetMetadata()
		ops = append(ops, client.OpDelete(kinds.Of(a), "", m.GetName(), client.IfUID(m.GetUid())))
	}
	if svc != nil {
		same := func(a, b *corev1.LoadBalancerIngress) bool { return proto.Equal(a, b) }
		if ingress := ingress(svc, has); !slices.EqualFunc(ingress, svc.GetStatus().GetLoadBalancer().GetIngress(), same) {
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
	for _, a := range created {
		r.events.Event(svc, events.Normal, "EnsuredLoadBalancer", "Allocated address %s", a.GetMetadata().GetName())
	}
	if len(created)+len(has.release) > 0 {
		r.written.Note(key, done.Revision)
	}
	return nil
}

// ingress is what the status of a service should show: its addresses in the order of its families.
// What others wrote into the status of a service that has none from here is left alone.
func ingress(svc *corev1.Service, has holding) []*corev1.LoadBalancerIngress {
	if len(has.keep) > 0 {
		var out []*corev1.LoadBalancerIngress
		for _, family := range familiesOf(svc) {
			if a := has.keep[family]; a != nil {
				out = append(out, &corev1.LoadBalancerIngress{Ip: a.GetMetadata().GetName(), IpMode: proto.String("VIP")})
			}
		}
		return out
	}
	return slices.DeleteFunc(slices.Clone(svc.GetStatus().GetLoadBalancer().GetIngress()), func(in *corev1.LoadBalancerIngress) bool {
		return slices.ContainsFunc(has.release, func(a *networkingv1.IPAddress) bool { return a.GetMetadata().GetName() == in.GetIp() })
	})
}

// offer has the services looked at that wait for an address: one came free.
func (r *reconciler) offer(c *controller.Controller) {
	for _, svc := range r.services.List() {
		if r.serves(svc) && len(svc.GetStatus().GetLoadBalancer().GetIngress()) < len(familiesOf(svc)) {
			c.Enqueue(client.KeyOf(svc))
		}
	}
}

// count tells how full the pools are.
func (r *reconciler) count() {
	all := r.addresses.List()
	for _, p := range r.pools {
		n := map[string]int{}
		for _, a := range all {
			if addr, err := netip.ParseAddr(a.GetMetadata().GetName()); err == nil && p.contains(addr) {
				n[familyOf(addr)]++
			}
		}
		for _, family := range families {
			if p.has(family) {
				r.metrics.allocated.WithLabelValues(p.name, family).Set(float64(n[family]))
			}
		}
	}
}
