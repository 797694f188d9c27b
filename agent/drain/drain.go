// Package drain lets a pod leave the service maps of every node before its containers are told to
// stop.
//
// A pod that is being deleted has left when the endpoint slices of all services that select it say
// so, and every node that is ready has programmed the revision at which they did. The first is seen
// in the agent's own informers, the second told by the endpoints service, which asks the nodes: see
// docs/decisions/0012-acknowledged-endpoints.md. The same agent answers what others wait for.
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
	"github.com/xebec-project/xebec/internal/kind"
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

// Coordinator knows what the node's maps have come to and what those of others have. Its methods
// may be called concurrently.
type Coordinator struct {
	cfg  Config
	wake chan struct{}

	mu      sync.Mutex
	waiters map[*waiter]struct{}
	// programmed is what this node's maps have come to, wanted what some node waits for.
	programmed, wanted int64
	// asked is what the endpoints service is asked about, pending the highest that is to be asked
	// next. One question stands at a time: a question that changed with every pod would have no answer
	// while pods go on leaving.
	asked, pending int64
	// everywhere is what all nodes are known to have come to.
	everywhere int64
	behind     []string
	// changed is closed and replaced when everywhere or behind changes.
	changed chan struct{}
}

// New returns a Coordinator, which tells and asks nobody before Run.
func New(cfg Config) *Coordinator {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Coordinator{cfg: cfg, wake: make(chan struct{}, 1), waiters: map[*waiter]struct{}{}, changed: make(chan struct{})}
}

// waiter is a pod that leaves.
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

// Programmed tells up to which revision of the endpoint slices the node's own maps are. It does not
// block.
func (c *Coordinator) Programmed(revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision < c.programmed {
		// The cluster was restored: what nodes had come to before says nothing.
		c.everywhere = 0
	}
	c.programmed = revision
	if c.wanted > 0 {
		signal(c.wake)
	}
}

// Left returns nil once no node sends the pod new connections by a service: at once when no service
// selects it. A pod that is gone from the API needs not be in any slice. It returns an error that
// names the nodes in the way when ctx ends first.
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
			return fmt.Errorf("the endpoint slices still show the pod: %w", ctx.Err())
		}
	}
}

// enter looks which services select the pod, and follows their slices from then on.
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

// revision returns the revision at which all slices showed that the pod leaves, 0 when there are
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
	// The endpoints service shows a pod that is being deleted until it has ended. One that it does not
	// show has become ready just before, and may still come.
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
				return fmt.Errorf("no word from %s: %w", strings.Join(behind, ", "), ctx.Err())
			}
			return fmt.Errorf("no word from the endpoints service: %w", ctx.Err())
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

// selects tells whether the endpoints service makes endpoints of the pod for a service.
func selects(s *corev1.Service, pod *corev1.Pod) bool {
	spec := s.GetSpec()
	if s.GetMetadata().GetNamespace() != pod.GetMetadata().GetNamespace() || len(spec.GetSelector()) == 0 ||
		spec.GetType() == kind.ServiceExternalName {
		return false
	}
	for k, v := range spec.GetSelector() {
		if have, ok := pod.GetMetadata().GetLabels()[k]; !ok || have != v {
			return false
		}
	}
	return len(spec.GetIpFamilies()) == 0 || slices.Contains(spec.GetIpFamilies(), kind.AddressTypeOf(pod.GetStatus().GetPodIp())) ||
		slices.ContainsFunc(pod.GetStatus().GetPodIps(), func(ip *corev1.PodIP) bool {
			return slices.Contains(spec.GetIpFamilies(), kind.AddressTypeOf(ip.GetIp()))
		})
}

// serviceOf returns the key of the service that the endpoints service made a slice for, the zero
// key of other slices.
func serviceOf(s *discoveryv1.EndpointSlice) client.Key {
	m := s.GetMetadata()
	if !kind.IsServiceSlice(s) {
		return client.Key{}
	}
	return client.Key{Namespace: m.GetNamespace(), Name: m.GetLabels()[kind.LabelServiceName]}
}
