// Package collector is the garbage collector: it deletes objects whose owners are gone, finishes
// foreground and orphan deletions, empties terminating namespaces, and deletes finished pods beyond
// a number.
//
// Informers keep the metadata of all objects but events. Before an object is deleted because its
// owner is missing there, the owner is read from the server, and every deletion names the uid and
// version that it was decided on.
package collector

import (
	"context"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Config has the settings of the collector.
type Config struct {
	// Workers is how many objects of each kind are worked on at once; 0 means 2.
	Workers int `yaml:"workers" help:"objects of each kind worked on at once (default: 2)"`
	// FinishedPods is how many pods that succeeded or failed are kept; 0 means 12500, less than 0
	// means all.
	FinishedPods int `yaml:"finishedPods" help:"finished pods kept, the oldest are deleted first (default: 12500; -1: all)"`
	// LeaseTTL is how long a leader that has vanished keeps the others waiting; 0 means the default of
	// internal/controller.
	LeaseTTL time.Duration `yaml:"leaseTTL" help:"time after which a leader that has vanished is replaced (default: 5s)"`
}

const (
	// defaultWorkers are few, since every kind has as many.
	defaultWorkers = 2
	// defaultFinishedPods is Kubernetes' number.
	defaultFinishedPods = 12500
)

// Validate returns the errors of all invalid settings.
func (c *Config) Validate() error {
	if c.Workers < 0 {
		return fmt.Errorf("workers: must not be negative, is %d", c.Workers)
	}
	return nil
}

// Deps is what the service needs from its process.
type Deps struct {
	elected.Deps
	// Scheme has the kinds whose objects are collected.
	Scheme *scheme.Scheme
}

// Service collects garbage while it leads.
type Service struct {
	*elected.Service

	cfg   Config
	kinds *scheme.Scheme
}

// New returns a service that does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	if cfg.Workers == 0 {
		cfg.Workers = defaultWorkers
	}
	if cfg.FinishedPods == 0 {
		cfg.FinishedPods = defaultFinishedPods
	}
	s := &Service{cfg: cfg, kinds: deps.Scheme}
	var err error
	s.Service, err = elected.New(elected.Config{
		Name: "collector", Component: "garbage-collector-controller", LeaseTTL: cfg.LeaseTTL, Setup: s.setup,
	}, deps.Deps)
	return s, err
}

// setup fills a term of leadership.
func (s *Service) setup(t *controller.Term) error {
	podKind := kinds.Of(&corev1.Pod{})
	g := newGraph(t.Client(), s.kinds)
	gc := &garbage{client: t.Client(), graph: g, events: s.Events(), absent: newAbsentees()}
	n := &namespaces{client: t.Client(), kinds: s.kinds}
	n.informer = controller.Informer(t, client.InformerOptions[*corev1.Namespace]{})
	c := t.Controller("namespace-deletion", s.cfg.Workers, n.reconcile)
	controller.For(c, n.informer)
	add := func(t *controller.Term, k *scheme.Kind) {
		s.add(t, k, gc, func(old, now scheme.Object) { n.left(c, old, now) })
	}
	for _, k := range s.kinds.Kinds() {
		if !k.Dynamic {
			add(t, k)
		}
	}
	d := &dynamicKinds{kinds: s.kinds, graph: g, term: t, add: add}
	t.Go("dynamic-kinds", d.run)
	t.Go("discovery", func(ctx context.Context) error { return discover(ctx, t.Client(), s.kinds, t.Logger()) })

	o := &orphans{client: t.Client(), namespaces: n.informer, graph: g, log: t.Logger()}
	t.Go("orphans", o.run)

	if s.cfg.FinishedPods > 0 {
		f := &finishedPods{client: t.Client(), informer: g.member(podKind).informer, keep: s.cfg.FinishedPods, log: t.Logger()}
		t.Go("finished-pods", f.run)
	}
	return nil
}

// add makes a term collect the objects of a kind. Objects of namespaces that are gone are reported
// to left.
func (s *Service) add(t *controller.Term, k *scheme.Kind, gc *garbage, left func(old, now scheme.Object)) {
	if isEvent(k) {
		return
	}
	o := client.InformerOptions[scheme.Object]{
		Kind: k, MetadataOnly: true, Transform: slim,
		Indexers: map[string]func(scheme.Object) []string{byOwner: ownerUIDs},
	}
	if k == kinds.Of(&corev1.Pod{}) {
		o.MetadataOnly, o.Transform = false, slimPod
	}
	i := controller.Informer(t, o)
	name := k.Plural
	if k.Dynamic {
		name = k.Resource()
	}
	c := t.Controller(name, s.cfg.Workers, func(ctx context.Context, key controller.Key) (controller.Result, error) {
		return gc.reconcile(ctx, k, key)
	})
	controller.Source(c, i)
	gc.graph.add(k, i, c)
	i.OnChange(func(old, now scheme.Object) { gc.graph.changed(k, old, now) })
	if k.Namespaced {
		i.OnChange(left)
	}
}

// isEvent reports whether a kind is that of events, which own nothing, are owned by nothing, and
// vanish by themselves.
func isEvent(k *scheme.Kind) bool { return k.Group == "" && k.Name == "Event" }

func namespacedKinds(kinds *scheme.Scheme) []*scheme.Kind {
	var namespaced []*scheme.Kind
	for _, k := range kinds.Kinds() {
		if k.Namespaced {
			namespaced = append(namespaced, k)
		}
	}
	return namespaced
}

// slim drops the metadata that is not read.
func slim(o scheme.Object) {
	m := o.GetMetadata()
	m.ManagedFields, m.Labels, m.Annotations = nil, nil, nil
}

// slimPod keeps of a pod the metadata that is read and the phase.
func slimPod(o scheme.Object) {
	slim(o)
	p := o.(*corev1.Pod)
	p.Spec = nil
	p.Status = &corev1.PodStatus{Phase: p.GetStatus().GetPhase()}
}

func ownerUIDs(o scheme.Object) []string {
	refs := o.GetMetadata().GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	uids := make([]string, 0, len(refs))
	for _, r := range refs {
		uids = append(uids, r.GetUid())
	}
	return uids
}

// resolve returns the kind and key of an owner, as seen from a dependent in a namespace. It fails
// for a kind that is not served, and for a namespaced owner of a dependent that has no namespace.
func resolve(kinds *scheme.Scheme, ref *metav1.OwnerReference, namespace string) (*scheme.Kind, controller.Key, error) {
	k, ok := kinds.ByAPIVersionKind(ref.GetApiVersion(), ref.GetKind())
	if !ok {
		return nil, controller.Key{}, fmt.Errorf("owner %s %s: kind %s %s is not served",
			ref.GetKind(), ref.GetName(), ref.GetApiVersion(), ref.GetKind())
	}
	if !k.Namespaced {
		return k.Stored(), controller.Key{Name: ref.GetName()}, nil
	}
	if namespace == "" {
		return nil, controller.Key{}, fmt.Errorf("owner %s %s lives in a namespace, its dependent does not", ref.GetKind(), ref.GetName())
	}
	return k.Stored(), controller.Key{Namespace: namespace, Name: ref.GetName()}, nil
}
