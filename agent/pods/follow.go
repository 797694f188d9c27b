package pods

import (
	"context"
	"sync"
)

// Kinds of objects that volumes show.
const (
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
)

// reference names an object that a volume shows.
type reference struct{ kind, namespace, name string }

// followers watch the objects that volumes show, each once for all pods of the node. Start gives it its context.
type followers struct {
	cluster Cluster

	mu  sync.Mutex
	ctx context.Context
	wg  sync.WaitGroup
	of  map[reference]*follower
}

type follower struct {
	stop context.CancelFunc
	// told are the workers that are told of changes.
	told map[*worker]bool
}

// follow makes the worker follow these objects, and no others any more. It is told of changes by outdated and nudge.
func (f *followers) follow(w *worker, refs []reference) {
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
			f.of[r] = &follower{stop: stop, told: map[*worker]bool{}}
			f.wg.Go(func() { f.cluster.Follow(ctx, r.kind, r.namespace, r.name, func() { f.changed(r) }) })
		}
		f.of[r].told[w] = true
	}
	for r, one := range f.of {
		if wanted[r] || !one.told[w] {
			continue
		}
		if delete(one.told, w); len(one.told) == 0 {
			one.stop()
			delete(f.of, r)
		}
	}
}

func (f *followers) changed(r reference) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.of[r]
	if one == nil {
		return
	}
	for w := range one.told {
		w.outdated()
		w.nudge()
	}
}
