package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// watches are the informers of what a node needs to know.
type watches struct {
	node     string
	stateDir string
	log      *zap.Logger

	nodes    *client.Informer[*corev1.Node]
	pods     *client.Informer[*corev1.Pod]
	services *client.Informer[*corev1.Service]
	slices   *client.Informer[*discoveryv1.EndpointSlice]

	// changed is signalled when a node's address or pod CIDR may have changed, cidr when this node's has one.
	changed chan struct{}
	cidr    chan netip.Prefix
}

func newWatches(c *client.Client, node, stateDir string, log *zap.Logger) *watches {
	failed := func(what string) func(error) {
		return func(err error) { log.Debug("Watch ended, it is resumed", zap.String("watch", what), zap.Error(err)) }
	}
	w := &watches{
		node: node, stateDir: stateDir, log: log,
		nodes: client.NewInformer(c, client.InformerOptions[*corev1.Node]{OnError: failed("nodes"), Transform: func(n *corev1.Node) {
			if n.GetMetadata().GetName() != node && n.Status != nil {
				// Routes need addresses only.
				n.Status = &corev1.NodeStatus{Addresses: n.Status.GetAddresses()}
			}
		}}),
		pods:     client.NewInformer(c, client.InformerOptions[*corev1.Pod]{FieldSelector: "spec.nodeName=" + node, OnError: failed("pods")}),
		services: client.NewInformer(c, client.InformerOptions[*corev1.Service]{OnError: failed("services")}),
		slices:   client.NewInformer(c, client.InformerOptions[*discoveryv1.EndpointSlice]{OnError: failed("endpointslices")}),
		changed:  make(chan struct{}, 1),
		cidr:     make(chan netip.Prefix, 1),
	}
	w.nodes.OnChange(w.onNode)
	return w
}

func (w *watches) runNodes(ctx context.Context) error { return w.nodes.Run(ctx) }

func (w *watches) onNode(old, now *corev1.Node) {
	if old == nil || now == nil || routeOf(old) != routeOf(now) {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
	if now == nil || now.GetMetadata().GetName() != w.node || now.GetSpec().GetPodCidr() == "" {
		return
	}
	prefix, err := netip.ParsePrefix(now.GetSpec().GetPodCidr())
	if err != nil {
		w.log.Error("Node's pod CIDR makes no sense", zap.Error(err))
		return
	}
	if old == nil || old.GetSpec().GetPodCidr() != now.GetSpec().GetPodCidr() || !proto.Equal(old.GetMetadata(), now.GetMetadata()) {
		if err := keepNode(w.stateDir, now); err != nil {
			w.log.Error("Node could not be kept for times without a control plane", zap.Error(err))
		}
	}
	select {
	case w.cidr <- prefix:
	default:
	}
}

// podCIDR returns where this node's pods get their addresses from, as soon as that is known, from the last time or from
// the control plane.
func (w *watches) podCIDR(ctx context.Context, known *corev1.Node) (netip.Prefix, error) {
	if cidr := known.GetSpec().GetPodCidr(); cidr != "" {
		return netip.ParsePrefix(cidr)
	}
	select {
	case <-ctx.Done():
		return netip.Prefix{}, ctx.Err()
	case p := <-w.cidr:
		return p, nil
	}
}

// routeOf returns what routes to a node depend on.
func routeOf(n *corev1.Node) podnet.NodeRoute {
	cidr, err1 := netip.ParsePrefix(n.GetSpec().GetPodCidr())
	addr, err2 := netip.ParseAddr(kind.NodeAddress(n, "InternalIP"))
	if errors.Join(err1, err2) != nil {
		return podnet.NodeRoute{}
	}
	return podnet.NodeRoute{PodCIDR: cidr, NodeIP: addr}
}

// runRoutes keeps the routes to the other nodes' pods. Before the nodes are known, those of the agent before stay.
func (w *watches) runRoutes(ctx context.Context, n *podnet.Network) error {
	if err := w.nodes.WaitForSync(ctx); err != nil {
		return err
	}
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.changed:
		case <-retry.C:
		}
		var routes []podnet.NodeRoute
		for _, node := range w.nodes.List() {
			if r := routeOf(node); r.PodCIDR.IsValid() && node.GetMetadata().GetName() != w.node {
				routes = append(routes, r)
			}
		}
		if err := n.SetNodes(routes); err != nil {
			w.log.Warn("Routes to other nodes are not complete", zap.Error(err))
			retry.Reset(networkRetry)
		}
	}
}

// runServices feeds the service maps and DNS.
func (w *watches) runServices(ctx context.Context, group *errgroup.Group, s *stack) error {
	w.services.OnChange(func(old, now *corev1.Service) {
		s.syncer.OnService(old, now)
		s.records.OnService(old, now)
	})
	w.slices.OnChange(func(old, now *discoveryv1.EndpointSlice) {
		s.syncer.OnEndpointSlice(old, now)
		s.records.OnEndpointSlice(old, now)
	})
	group.Go(func() error { return w.services.Run(ctx) })
	group.Go(func() error { return w.slices.Run(ctx) })
	if err := errors.Join(w.services.WaitForSync(ctx), w.slices.WaitForSync(ctx)); err != nil {
		return err
	}
	s.syncer.Synced()
	s.records.Synced()
	<-ctx.Done()
	return ctx.Err()
}

// runPods tells the set of the pods that are bound to this node.
func (w *watches) runPods(ctx context.Context, set *pods.Set) error {
	w.pods.OnChange(func(old, now *corev1.Pod) {
		if old != nil && (now == nil || now.GetMetadata().GetUid() != old.GetMetadata().GetUid()) {
			set.Remove(old.GetMetadata().GetUid())
		}
		if now != nil {
			set.Update(now)
		}
	})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.pods.Run(ctx) })
	group.Go(func() error {
		if err := w.pods.WaitForSync(ctx); err != nil {
			return err
		}
		for {
			uids := map[string]bool{}
			for _, p := range w.pods.List() {
				uids[p.GetMetadata().GetUid()] = true
			}
			err := set.Synced(ctx, uids)
			if err == nil {
				w.log.Info("Pods are known", zap.Int("pods", len(uids)))
				return nil
			}
			w.log.Warn("Orphans could not be looked for", zap.Error(err))
			timer := time.NewTimer(networkRetry)
			select {
			case <-ctx.Done():
				timer.Stop()
				return fmt.Errorf("looking for orphans: %w", ctx.Err())
			case <-timer.C:
			}
		}
	})
	return group.Wait()
}
