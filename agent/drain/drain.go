// Package drain delays the stop signal of a deleted pod's containers until every node has removed
// the pod from its service maps.
//
// That is the case when the endpoint slices of all services that select the pod show it as not
// ready, and every ready node has programmed that revision of the slices. The agent's own informers
// show the first; the endpoints service, which collects acknowledgements of the nodes, reports the
// second: see docs/decisions/0012-acknowledged-endpoints.md. The agent also acknowledges the
// revisions that other nodes wait for.
package drain

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
)

// Informer is what is known of a kind; *client.Informer is one.
type Informer[T any] interface {
	List() []T
	WaitForSync(ctx context.Context) error
}

// Config is what a Coordinator needs. All but Log are required.
type Config struct {
	// Node is this node's name.
	Node string
	// Endpoints reaches the endpoints service.
	Endpoints endpointsv1.EndpointsServiceClient
	Services  Informer[*corev1.Service]
	Slices    Informer[*discoveryv1.EndpointSlice]
	Log       *zap.Logger
}

// Coordinator keeps the revisions that the maps of this node and of the others have reached. Its
// methods may be called concurrently.
type Coordinator struct {
	cfg  Config
	wake chan struct{}

	mu      sync.Mutex
	waiters map[*waiter]struct{}
	// programmed is the revision of this node's maps, wanted the revision that another node waits for.
	programmed, wanted int64
	// asked is the revision in the request to the endpoints service, pending the highest revision for
	// the next request. There is one request at a time: one that changed with every deleted pod would
	// not be answered while more pods are deleted.
	asked, pending int64
	// everywhere is the revision that all nodes have programmed.
	everywhere int64
	behind     []string
	// changed is closed and replaced when everywhere or behind changes.
	changed chan struct{}
}

// New returns a Coordinator, which makes no calls before Run.
func New(cfg Config) *Coordinator {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Coordinator{cfg: cfg, wake: make(chan struct{}, 1), waiters: map[*waiter]struct{}{}, changed: make(chan struct{})}
}

// waiter is a deleted pod that waits for the nodes.
type waiter struct {
	// services select the pod; slices are theirs.
	services map[client.Key]bool
	slices   map[client.Key]*discoveryv1.EndpointSlice
	wake     chan struct{}
}

// OnService takes an informer's event: now is nil when the service was deleted.
func (c *Coordinator) OnService(old, now *corev1.Service) {
	if now != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.waiters {
		if key := client.KeyOf(old); w.services[key] {
			delete(w.services, key)
			signal(w.wake)
		}
	}
}

// OnEndpointSlice takes an informer's event: old is nil when the slice was created, now is nil when
// it was deleted.
func (c *Coordinator) OnEndpointSlice(old, now *discoveryv1.EndpointSlice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiters) == 0 {
		return
	}
	slice := now
	if slice == nil {
		slice = old
	}
	for w := range c.waiters {
		if !w.services[serviceOf(slice)] {
			continue
		}
		if now == nil {
			delete(w.slices, client.KeyOf(slice))
		} else {
			w.slices[client.KeyOf(slice)] = now
		}
		signal(w.wake)
	}
}

// Programmed records the revision of the endpoint slices that the node's own maps have reached. It
// does not block.
func (c *Coordinator) Programmed(revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision < c.programmed {
		// The cluster was restored from a backup: earlier acknowledgements are void.
		c.everywhere = 0
	}
	c.programmed = revision
	if c.wanted > 0 {
		signal(c.wake)
	}
}

// Left returns nil once no node sends the pod new connections through a service: immediately when
// no service selects it. A pod that was removed from the API need not be in a slice. When ctx ends
// first, the error names the nodes that have not acknowledged.
func (c *Coordinator) Left(ctx context.Context, pod *corev1.Pod, gone bool) error {
	if err := c.cfg.Services.WaitForSync(ctx); err != nil {
		return err
	}
	if err := c.cfg.Slices.WaitForSync(ctx); err != nil {
		return err
	}
	w := c.enter(pod)
	defer c.exit(w)
	for {
		revision, left := c.revision(w, pod, gone)
		if left {
			return c.await(ctx, revision)
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return fmt.Errorf("the pod is still ready in the endpoint slices: %w", ctx.Err())
		}
	}
}

// enter finds the services that select the pod, and follows their slices from then on.
func (c *Coordinator) enter(pod *corev1.Pod) *waiter {
	w := &waiter{services: map[client.Key]bool{}, slices: map[client.Key]*discoveryv1.EndpointSlice{}, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.cfg.Services.List() {
		if selects(s, pod) {
			w.services[client.KeyOf(s)] = true
		}
	}
	if len(w.services) > 0 {
		for _, s := range c.cfg.Slices.List() {
			if w.services[serviceOf(s)] {
				w.slices[client.KeyOf(s)] = s
			}
		}
	}
	c.waiters[w] = struct{}{}
	return w
}

func (c *Coordinator) exit(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, w)
}

// revision returns the revision at which all slices showed the pod as terminating, 0 when there are
// none.
func (c *Coordinator) revision(w *waiter, pod *corev1.Pod, gone bool) (revision int64, left bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	shown := map[client.Key]bool{}
	for _, s := range w.slices {
		if !w.services[serviceOf(s)] {
			continue
		}
		n, _ := strconv.ParseInt(s.GetMetadata().GetResourceVersion(), 10, 64)
		revision = max(revision, n)
		for _, e := range s.GetEndpoints() {
			if e.GetTargetRef().GetUid() != pod.GetMetadata().GetUid() {
				continue
			}
			if !e.GetConditions().GetTerminating() {
				return 0, false
			}
			shown[serviceOf(s)] = true
		}
	}
	// The endpoints service keeps a deleted pod in the slices until it has terminated. A pod that is
	// missing became ready just before, and may still be added.
	return revision, gone || ended(pod) || len(shown) == len(w.services)
}

// await waits until every node has programmed a revision.
func (c *Coordinator) await(ctx context.Context, revision int64) error {
	for {
		c.mu.Lock()
		if c.everywhere >= revision {
			c.mu.Unlock()
			return nil
		}
		if c.pending < revision {
			c.pending = revision
			signal(c.wake)
		}
		changed, behind := c.changed, c.behind
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			if len(behind) > 0 {
				return fmt.Errorf("no acknowledgement from %s: %w", strings.Join(behind, ", "), ctx.Err())
			}
			return fmt.Errorf("no acknowledgement from the endpoints service: %w", ctx.Err())
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func ended(pod *corev1.Pod) bool {
	st := pod.GetStatus()
	return st.GetPodIp() == "" || st.GetPhase() == "Failed" || st.GetPhase() == "Succeeded"
}

// selects reports whether the endpoints service makes endpoints of the pod for a service.
func selects(s *corev1.Service, pod *corev1.Pod) bool {
	spec := s.GetSpec()
	if s.GetMetadata().GetNamespace() != pod.GetMetadata().GetNamespace() || len(spec.GetSelector()) == 0 ||
		spec.GetType() == core.ServiceExternalName {
		return false
	}
	for k, v := range spec.GetSelector() {
		if have, ok := pod.GetMetadata().GetLabels()[k]; !ok || have != v {
			return false
		}
	}
	return len(spec.GetIpFamilies()) == 0 || slices.Contains(spec.GetIpFamilies(), discovery.AddressTypeOf(pod.GetStatus().GetPodIp())) ||
		slices.ContainsFunc(pod.GetStatus().GetPodIps(), func(ip *corev1.PodIP) bool {
			return slices.Contains(spec.GetIpFamilies(), discovery.AddressTypeOf(ip.GetIp()))
		})
}

// serviceOf returns the key of the service that the endpoints service made a slice for, the zero
// key of other slices.
func serviceOf(s *discoveryv1.EndpointSlice) client.Key {
	m := s.GetMetadata()
	if !discovery.IsServiceSlice(s) {
		return client.Key{}
	}
	return client.Key{Namespace: m.GetNamespace(), Name: m.GetLabels()[discovery.LabelServiceName]}
}
