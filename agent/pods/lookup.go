package pods

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// ErrNotRunning is returned for a pod of which nothing runs.
var ErrNotRunning = errors.New("pod is not running")

// find returns the worker of a pod.
func (s *Set) find(namespace, pod string) (*worker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *worker
	for _, w := range s.workers {
		// Of two pods by the same name one is on its way out; the other one is meant.
		if w.namespace == namespace && w.name == pod && (found == nil || found.leaving()) {
			found = w
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: pod %s/%s is not on node %s", ErrNotFound, namespace, pod, s.cfg.NodeName)
	}
	return found, nil
}

// Pods returns the pods that are not gone yet, as they were last asked for.
func (s *Set) Pods() []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*corev1.Pod, 0, len(s.workers))
	for _, w := range s.workers {
		w.mu.Lock()
		out = append(out, w.pod)
		w.mu.Unlock()
	}
	return out
}

// Netns returns the path that pins a pod's network namespace, empty for a pod in the node's
// network. The error wraps ErrNotRunning when no container of the pod runs.
func (s *Set) Netns(namespace, pod string) (string, error) {
	w, err := s.find(namespace, pod)
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	running := false
	for _, in := range w.instances {
		running = running || in.running
	}
	if !running {
		return "", fmt.Errorf("%s/%s: %w", namespace, pod, ErrNotRunning)
	}
	if w.pod.GetSpec().GetHostNetwork() {
		return "", nil
	}
	return filepath.Join(w.dir.Sandbox(), "net"), nil
}

// Stats is what a pod uses.
type Stats struct {
	Namespace, Name, UID string
	runtime.Usage
	// Containers are the running ones, in the order of the spec.
	Containers []ContainerStats
}

// ContainerStats is what a container uses.
type ContainerStats struct {
	Name string
	runtime.Usage
}

// Stats returns what the pods use, by namespace and name; of one pod only, when it is named. A pod
// of which nothing runs is left out.
func (s *Set) Stats(namespace, pod string) ([]Stats, error) {
	var all []*worker
	if pod != "" {
		w, err := s.find(namespace, pod)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	} else {
		s.mu.Lock()
		for _, w := range s.workers {
			all = append(all, w)
		}
		s.mu.Unlock()
	}
	out := make([]Stats, 0, len(all))
	for _, w := range all {
		one, err := w.stats()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Stats) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return out, nil
}

func (w *worker) stats() (Stats, error) {
	usage, err := w.cfg.Runtime.PodUsage(w.uid)
	if err != nil {
		return Stats{}, err
	}
	out := Stats{Namespace: w.namespace, Name: w.name, UID: w.uid, Usage: usage}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range resources.Containers(w.pod) {
		in := w.instances[c.GetName()]
		if !in.running {
			continue
		}
		u, err := w.cfg.Runtime.ContainerUsage(w.uid, in.id)
		if errors.Is(err, fs.ErrNotExist) {
			// It ended just now.
			continue
		}
		if err != nil {
			return Stats{}, err
		}
		out.Containers = append(out.Containers, ContainerStats{c.GetName(), u})
	}
	return out, nil
}
