package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/component"
	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/drain"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/snapshot"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
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

	// kept is what the previous agent knew of the cluster.
	kept         []scheme.Object
	keptServices *resumed[*corev1.Service]
	keptSlices   *resumed[*discoveryv1.EndpointSlice]
	keptPods     *resumed[*corev1.Pod]
	keeper       *snapshot.Keeper

	drain    *drain.Coordinator
	policies *policyWatch

	// changed is signalled when a node's address, pod CIDRs, zone or readiness may have changed; cidrs
	// has those of this node that were heard of last.
	changed chan struct{}
	cidrs   chan ranges
	// doubted is called a while after others took this node for silent, and when its object is gone.
	// Set before runNodes.
	doubted func()
}

// doubtDelay is how long a node that is back after a silence waits at least before it says so:
// without its lease, whose renewal may be in progress, the status would not count. It waits at most
// twice as long, so that not all nodes write at once after an outage.
const doubtDelay = time.Second

func newWatches(conn grpc.ClientConnInterface, c *client.Client, node, stateDir string, log *zap.Logger) *watches {
	failed := func(what string) func(error) {
		return func(err error) {
			log.Debug("Watch ended, resuming", zap.String(metrics.KeyWatch, what), zap.Error(err))
		}
	}
	w := &watches{
		node: node, stateDir: stateDir, log: log,
		nodes: client.NewInformer(c, client.InformerOptions[*corev1.Node]{OnError: failed("nodes"), Transform: func(n *corev1.Node) {
			if n.GetMetadata().GetName() != node && n.Status != nil {
				// Routes need addresses, and who answers for load balancers depends on who is ready. Agents are
				// asked whether they reach each other.
				n.Status = &corev1.NodeStatus{
					Addresses:       n.Status.GetAddresses(),
					Conditions:      readiness(n),
					DaemonEndpoints: n.Status.GetDaemonEndpoints(),
				}
			}
		}}),
		pods: client.NewInformer(c, client.InformerOptions[*corev1.Pod]{FieldSelector: "spec.nodeName=" + node, OnError: failed("pods")}),
		services: client.NewInformer(c, client.InformerOptions[*corev1.Service]{
			OnError: failed("services"), Transform: slim[*corev1.Service],
			Indexers: map[string]func(*corev1.Service) []string{byNamespace: namespaceOf},
		}),
		slices: client.NewInformer(
			c,
			client.InformerOptions[*discoveryv1.EndpointSlice]{OnError: failed("endpointslices"), Transform: slim[*discoveryv1.EndpointSlice]},
		),
		changed: make(chan struct{}, 1),
		cidrs:   make(chan ranges, 1),
	}
	w.drain = drain.New(drain.Config{
		Node: node, Endpoints: endpointsv1.NewEndpointsServiceClient(conn), Services: w.services, Slices: w.slices, Log: log,
	})
	w.policies = newPolicyWatch(c, stateDir, log)
	w.nodes.OnChange(w.onNode)
	path := filepath.Join(stateDir, "cluster")
	w.keeper = snapshot.NewKeeper(path, w.all, log)
	var err error
	if w.kept, err = snapshot.Load(path); err != nil {
		log.Error("Failed to read the snapshot of the cluster, waiting for the control plane", zap.Error(err))
	}
	return w
}

// all yields what an agent has to know of the cluster to serve it without a control plane.
func (w *watches) all(yield func(scheme.Object) bool) {
	for _, n := range w.nodes.List() {
		route := &corev1.Node{
			Metadata: &metav1.ObjectMeta{Name: n.GetMetadata().GetName(), Labels: map[string]string{core.LabelZone: zoneOf(n)}},
			Spec:     &corev1.NodeSpec{PodCidr: n.GetSpec().GetPodCidr(), PodCidrs: n.GetSpec().GetPodCidrs()},
			Status:   &corev1.NodeStatus{Addresses: n.GetStatus().GetAddresses()},
		}
		if !yield(route) {
			return
		}
	}
	for _, p := range w.pods.List() {
		if datapath.HasHostPorts(p) && !yield(p) {
			return
		}
	}
	for _, s := range w.services.List() {
		if !yield(s) {
			return
		}
	}
	for _, s := range w.slices.List() {
		if !yield(s) {
			return
		}
	}
}

func (w *watches) runNodes(ctx context.Context) error { return w.nodes.Run(ctx) }

func (w *watches) onNode(old, now *corev1.Node) {
	if old == nil || now == nil || !slices.Equal(routesOf(old), routesOf(now)) || zoneOf(old) != zoneOf(now) || !sameAnnouncer(old, now) {
		select {
		case w.changed <- struct{}{}:
		default:
		}
		w.keeper.Changed()
	}
	if now == nil {
		if old.GetMetadata().GetName() == w.node {
			w.log.Warn("Node object was deleted")
			w.doubted()
		}
		return
	}
	if now.GetMetadata().GetName() != w.node {
		return
	}
	if core.NodeCondition(now, core.NodeReady).GetStatus() == "Unknown" {
		time.AfterFunc(doubtDelay+rand.N(doubtDelay), w.doubted)
	}
	if now.GetSpec().GetPodCidr() == "" {
		return
	}
	cidrs, err := podRanges(now)
	if err != nil {
		w.log.Error("Invalid pod CIDR of the node", zap.Error(err))
		return
	}
	if old == nil || !slices.Equal(old.GetSpec().GetPodCidrs(), now.GetSpec().GetPodCidrs()) ||
		!proto.Equal(old.GetMetadata(), now.GetMetadata()) {
		if err := keepNode(w.stateDir, now); err != nil {
			w.log.Error("Failed to store the node object", zap.Error(err))
		}
	}
	select {
	case <-w.cidrs: // was overtaken
	default:
	}
	w.cidrs <- cidrs
}

// zones returns the zone of each node that has one.
func zones(nodes iter.Seq[*corev1.Node]) map[string]string {
	out := map[string]string{}
	for n := range nodes {
		if zone := zoneOf(n); zone != "" {
			out[n.GetMetadata().GetName()] = zone
		}
	}
	return out
}

// readiness is what others read of a node's conditions.
func readiness(n *corev1.Node) []*corev1.NodeCondition {
	if c := core.NodeCondition(n, core.NodeReady); c != nil {
		return []*corev1.NodeCondition{{Type: c.GetType(), Status: c.GetStatus()}}
	}
	return nil
}

// sameAnnouncer reports whether two versions of a node are alike to who chooses those that answer
// for load balancers.
func sameAnnouncer(a, b *corev1.Node) bool {
	return datapath.NewAnnouncers(slices.Values([]*corev1.Node{a})).Equal(datapath.NewAnnouncers(slices.Values([]*corev1.Node{b}))) &&
		core.NodeCondition(a, core.NodeReady).GetStatus() == core.NodeCondition(b, core.NodeReady).GetStatus()
}

func zoneOf(n *corev1.Node) string { return n.GetMetadata().GetLabels()[core.LabelZone] }

// routes returns the routes to the pods of all nodes but this one.
func (w *watches) routes(nodes iter.Seq[*corev1.Node]) []podnet.NodeRoute {
	var routes []podnet.NodeRoute
	for node := range nodes {
		if node.GetMetadata().GetName() != w.node {
			routes = append(routes, routesOf(node)...)
		}
	}
	return routes
}

// runNeighbours keeps the routes to the other nodes' pods, and what traffic distribution needs to
// know of nodes. Before the nodes are known, those of the previous agent stay, and those it kept on
// disk are added: the machine may have been restarted.
func (w *watches) runNeighbours(ctx context.Context, s *stack) error {
	kept := ofKind[*corev1.Node](w.kept)
	if err := s.pods.RestoreNodes(w.routes(kept)); err != nil {
		w.log.Warn("Failed to restore routes to other nodes", zap.Error(err))
	}
	if err := s.datapath.AttachOverlay(); err != nil {
		w.log.Warn("Failed to attach the programs of the overlay", zap.Error(err))
	}
	if s.datapath.Fresh() {
		if err := s.setNodes(kept); err != nil {
			return err
		}
	}
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
		nodes := w.nodes.List()
		s.syncer.SetZones(zones(slices.Values(nodes)))
		s.syncer.SetAnnouncers(datapath.NewAnnouncers(slices.Values(nodes)))
		if err := s.setNodes(slices.Values(nodes)); err != nil {
			w.log.Warn("Failed to update the addresses of nodes", zap.Error(err))
			retry.Reset(networkRetry)
		}
		if err := s.pods.SetNodes(w.routes(slices.Values(nodes))); err != nil {
			w.log.Warn("Failed to update routes to other nodes", zap.Error(err))
			retry.Reset(networkRetry)
		}
		if err := s.datapath.AttachOverlay(); err != nil {
			w.log.Warn("Failed to attach the programs of the overlay", zap.Error(err))
			retry.Reset(networkRetry)
		}
		// Endpoints on a node that has just joined may have been heard of before the node.
		s.syncer.SetRoutes(s.clusterCIDRs, s.pods.Reached())
	}
}

// serveKept fills the service maps and DNS from the snapshot of the previous agent, so that names
// resolve before the informers have synced. Of pods, whose informer starts last, it also takes the
// changes from then on.
func (w *watches) serveKept(s *stack) {
	w.keptServices = newResumed(ofKind[*corev1.Service](w.kept), func(old, now *corev1.Service) {
		s.syncer.OnService(old, now)
		s.resolver.OnService(old, now)
	})
	w.keptSlices = newResumed(ofKind[*discoveryv1.EndpointSlice](w.kept), func(old, now *discoveryv1.EndpointSlice) {
		s.syncer.OnEndpointSlice(old, now)
		s.resolver.OnEndpointSlice(old, now)
	})
	w.keptPods = newResumed(ofKind[*corev1.Pod](w.kept), s.syncer.OnPod)
	w.pods.OnChange(func(old, now *corev1.Pod) {
		w.keptPods.onChange(old, now)
		if old != nil && datapath.HasHostPorts(old) || now != nil && datapath.HasHostPorts(now) {
			w.keeper.Changed()
		}
	})
	if len(w.kept) == 0 {
		return
	}
	s.syncer.SetZones(zones(ofKind[*corev1.Node](w.kept)))
	s.resolver.Restored()
	if s.datapath.Fresh() {
		s.syncer.Synced() // otherwise the maps are newer than the file
	}
	w.log.Info("Snapshot of the cluster loaded", zap.Int(metrics.KeyObjects, len(w.kept)))
}

// runServices passes events to the service maps and DNS. Call it after serveKept.
func (w *watches) runServices(ctx context.Context, tasks *component.Tasks, s *stack) error {
	w.services.OnChange(func(old, now *corev1.Service) {
		w.keptServices.onChange(old, now)
		w.drain.OnService(old, now)
		w.keeper.Changed()
	})
	w.slices.OnChange(func(old, now *discoveryv1.EndpointSlice) {
		w.keptSlices.onChange(old, now)
		w.drain.OnEndpointSlice(old, now)
		w.keeper.Changed()
	})
	reached := &progress{to: s.syncer.Reached}
	w.slices.OnProgress(reached.report)
	tasks.Go(func() error { return w.services.Run(ctx) })
	tasks.Go(func() error { return w.slices.Run(ctx) })
	if err := errors.Join(w.services.WaitForSync(ctx), w.slices.WaitForSync(ctx)); err != nil {
		return err
	}
	w.keptServices.forget()
	w.keptSlices.forget()
	reached.open()
	// Pods that were kept stand in for those that are not known yet: containerd may be away.
	s.syncer.Synced()
	s.resolver.Synced()
	// Before all is known, the file knows more.
	if err := errors.Join(w.nodes.WaitForSync(ctx), w.pods.WaitForSync(ctx)); err != nil {
		return err
	}
	w.keptPods.forget()
	w.keeper.Changed()
	return w.keeper.Run(ctx)
}

// runPods tells the set of the pods that are bound to this node.
func (w *watches) runPods(ctx context.Context, set *pods.Set, files *staticPods) error {
	w.pods.OnChange(func(old, now *corev1.Pod) {
		if old != nil && (now == nil || now.GetMetadata().GetUid() != old.GetMetadata().GetUid()) {
			set.Remove(old.GetMetadata().GetUid())
		}
		if now != nil && !files.mirrored(now) {
			set.Update(now)
		}
	})
	w.pods.OnState(func() {
		if revision, err := strconv.ParseInt(w.pods.Revision(), 10, 64); err == nil {
			set.Restated(w.pods.List(), revision)
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
			files.known(set, uids)
			err := set.Synced(ctx, uids)
			if err == nil {
				w.log.Info("Pods synced", zap.Int(metrics.KeyPods, len(uids)))
				return nil
			}
			w.log.Warn("Failed to list orphaned containers", zap.Error(err))
			timer := time.NewTimer(networkRetry)
			select {
			case <-ctx.Done():
				timer.Stop()
				return fmt.Errorf("list orphaned containers: %w", ctx.Err())
			case <-timer.C:
			}
		}
	})
	return group.Wait()
}
