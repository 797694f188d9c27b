package objects

import (
	"context"
	"slices"
	"sync"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Kinds of objects that volumes show.
const (
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
)

// reference names an object that a volume shows.
type reference struct{ kind, namespace, name string }

// Watcher watches an object for a pod.
type Watcher interface {
	// Follow calls changed whenever the ConfigMap or Secret, as kind says, may have changed, until ctx
	// ends.
	Follow(ctx context.Context, kind, namespace, name string, changed func())
}

// subscriber receives changes of the objects that it follows.
type subscriber interface {
	// ObjectsChanged must not block.
	ObjectsChanged()
}

// Followers watch the objects that volumes show, each once for all pods of the node.
type Followers struct {
	cluster Watcher

	mu  sync.Mutex
	ctx context.Context
	wg  sync.WaitGroup
	of  map[reference]*follower
}

type follower struct {
	stop context.CancelFunc
	// by are the subscribers that follow the object.
	by map[subscriber]bool
}

// NewFollowers returns followers without watches.
func NewFollowers(cluster Watcher) *Followers {
	return &Followers{cluster: cluster, of: map[reference]*follower{}}
}

// Start lets follow begin watches, which end with ctx.
func (f *Followers) Start(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ctx = ctx
}

// Wait returns when all watches have ended.
func (f *Followers) Wait() { f.wg.Wait() }

// Follow makes the subscriber follow these objects, and no others any more. Before start and after
// the end of its context it has no effect.
func (f *Followers) Follow(s subscriber, refs []reference) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx == nil || f.ctx.Err() != nil {
		return
	}
	wanted := map[reference]bool{}
	for _, r := range refs {
		wanted[r] = true
		if f.of[r] == nil {
			ctx, stop := context.WithCancel(f.ctx)
			f.of[r] = &follower{stop: stop, by: map[subscriber]bool{}}
			f.wg.Go(func() { f.cluster.Follow(ctx, r.kind, r.namespace, r.name, func() { f.changed(r) }) })
		}
		f.of[r].by[s] = true
	}
	for r, one := range f.of {
		if wanted[r] || !one.by[s] {
			continue
		}
		if delete(one.by, s); len(one.by) == 0 {
			one.stop()
			delete(f.of, r)
		}
	}
}

func (f *Followers) changed(r reference) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.of[r]
	if one == nil {
		return
	}
	for s := range one.by {
		s.ObjectsChanged()
	}
}

// References returns the objects that the pod's volumes show.
func References(pod *corev1.Pod) []reference {
	var out []reference
	add := func(kind, name string) {
		if r := (reference{kind, pod.GetMetadata().GetNamespace(), name}); name != "" && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	for _, v := range pod.GetSpec().GetVolumes() {
		src := v.GetVolumeSource()
		add(kindConfigMap, src.GetConfigMap().GetLocalObjectReference().GetName())
		add(kindSecret, src.GetSecret().GetSecretName())
		for _, s := range src.GetProjected().GetSources() {
			add(kindConfigMap, s.GetConfigMap().GetLocalObjectReference().GetName())
			add(kindSecret, s.GetSecret().GetLocalObjectReference().GetName())
		}
	}
	return out
}
