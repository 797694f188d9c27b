package pods

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Set is the pods of a node and their workers. Its methods may be called concurrently.
type Set struct {
	cfg Config

	mu      sync.Mutex
	ctx     context.Context
	workers map[string]*worker
	// closed tells that no pod is begun any more.
	closed bool
	wg     sync.WaitGroup
}

// New returns a set without pods. Nothing runs before Start.
func New(cfg Config) *Set {
	cfg.setDefaults()
	s := &Set{cfg: cfg, workers: map[string]*worker{}}
	if cfg.Allocatable != (runtime.Resources{}) {
		s.cfg.room = s.room
	}
	return s
}

// Start adopts the pods of the previous agent; Update has an effect from then on. A pod of which
// nothing runs any more, as after a restart of the machine, starts nothing before Update or
// Confirm. The workers end with ctx and leave the containers running; Wait waits for the workers.
func (s *Set) Start(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.StateDir, 0o711); err != nil {
		return fmt.Errorf("creating the directory for pods: %w", err)
	}
	if err := checkpoint.Sweep(s.cfg.StateDir); err != nil {
		s.cfg.Log.Warn("Failed to remove directories of removed pods", zap.Error(err))
	}
	if err := checkpoint.MakeSecretsDir(s.cfg.StateDir); err != nil {
		return err
	}
	if err := checkpoint.TidySecrets(s.cfg.StateDir); err != nil {
		s.cfg.Log.Warn("Failed to move secrets into memory", zap.Error(err))
	}
	known, errs := checkpoint.LoadPods(s.cfg.StateDir)
	for _, err := range errs {
		s.cfg.Log.Warn("Failed to load a stored pod", zap.Error(err))
	}
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	s.cfg.followers.Start(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pod := range known {
		s.launch(pod, false, true)
	}
	return nil
}

// Wait returns when all workers have ended, after Start's ctx has.
func (s *Set) Wait() {
	s.wg.Wait()
	s.cfg.followers.Wait()
}

// Update sets what the control plane asks of a pod, on its first appearance and every change. The
// caller must not change the pod afterwards.
func (s *Set) Update(pod *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := pod.GetMetadata().GetUid()
	if uid == "" || s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	if w, ok := s.workers[uid]; ok {
		w.update(pod)
		return
	}
	if !s.closed {
		s.launch(pod, false, false)
	}
}

// Remove stops a pod that the control plane no longer has, within its grace period. Update may
// bring a pod of that uid back: a restored backup may have it as it was before it was bound.
func (s *Set) Remove(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.workers[uid]; ok {
		w.remove()
	}
}

// Restated compares the statuses that were written with a complete list of the node's pods at a
// revision. It follows the calls of Update and Remove for that list. After a restore of a backup
// the list lacks statuses that were written since; they are written again.
func (s *Set) Restated(known []*corev1.Pod, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pod := range known {
		if w, ok := s.workers[pod.GetMetadata().GetUid()]; ok && w.publisher.Restated(pod, revision) {
			w.update(pod)
		}
	}
}

// Synced stops everything on the node that belongs to none of the pods that the control plane has.
// It needs a complete list of their uids.
func (s *Set) Synced(ctx context.Context, uids map[string]bool) error {
	containers, err := s.cfg.Runtime.List(ctx, "")
	if err != nil {
		return fmt.Errorf("list orphaned containers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil {
		return context.Canceled
	}
	for uid, w := range s.workers {
		if !uids[uid] {
			w.remove()
		}
	}
	for _, c := range containers {
		if uids[c.PodUID] || s.workers[c.PodUID] != nil {
			continue
		}
		// Nothing is known of the pod but its containers' labels: enough to stop them.
		s.launch(&corev1.Pod{
			Metadata: &metav1.ObjectMeta{Uid: c.PodUID, Namespace: c.PodNamespace, Name: c.PodName},
			Spec:     &corev1.PodSpec{},
		}, true, false)
	}
	dirs, err := checkpoint.PodDirs(s.cfg.StateDir)
	if err != nil {
		return fmt.Errorf("list orphaned containers: %w", err)
	}
	for _, uid := range dirs {
		if !uids[uid] && s.workers[uid] == nil {
			// An agent died before it had written down whose directory it was. There may be mounts in it all
			// the same.
			s.launch(&corev1.Pod{Metadata: &metav1.ObjectMeta{Uid: uid}, Spec: &corev1.PodSpec{}}, true, false)
		}
	}
	return nil
}

// ImagesChanged makes pods that wait for an image try again, after images were imported.
func (s *Set) ImagesChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		w.mu.Lock()
		w.newImages = true
		w.mu.Unlock()
		w.nudge()
	}
}

// Images returns the full names of the images that the node's pods need, also of containers that do
// not run now, and of volumes.
func (s *Set) Images() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, w := range s.workers {
		pod, _ := w.desired()
		if p := pod.GetStatus().GetPhase(); p == core.PodSucceeded || p == core.PodFailed {
			continue
		}
		for _, c := range resources.Containers(pod) {
			if full, err := images.Normalize(c.GetImage()); err == nil {
				names = append(names, full)
			}
		}
		for _, v := range pod.GetSpec().GetVolumes() {
			if full, err := images.Normalize(v.GetVolumeSource().GetImage().GetReference()); err == nil {
				names = append(names, full)
			}
		}
	}
	return names
}

// launch starts a worker; s.mu is held.
func (s *Set) launch(pod *corev1.Pod, gone, unconfirmed bool) {
	uid := pod.GetMetadata().GetUid()
	w := newWorker(&s.cfg, pod, gone)
	w.unconfirmed = unconfirmed
	s.workers[uid] = w
	s.wg.Go(func() {
		w.run(s.ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if !w.finished {
			return
		}
		delete(s.workers, uid)
		if again := w.askedAgain(); again != nil && s.ctx.Err() == nil {
			s.launch(again, false, false)
		}
	})
}

// Len returns how many pods the node has.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.workers)
}

// Instance is one attempt of a container, for those who read its log or run commands in it.
type Instance struct {
	// ID is containerd's.
	ID string
	// LogPath is its log.
	LogPath string
	// Running reports whether its process runs.
	Running bool
	// Ended is closed when the attempt ends. It is nil for one that has ended.
	Ended <-chan struct{}

	name       string
	stdin, tty bool
	// exitCode is that of the attempt once Ended is closed.
	exitCode *atomic.Int32
}

// Container finds a container of a pod. An empty container name stands for the pod's only one, or,
// with first, for its first. Previous finds the attempt before the current one.
func (s *Set) Container(namespace, pod, container string, first, previous bool) (Instance, error) {
	found, err := s.find(namespace, pod)
	if err != nil {
		return Instance{}, err
	}
	return found.instance(container, first, previous)
}

// instance finds one of the pod's containers by what the last round saw.
func (w *worker) instance(name string, first, previous bool) (Instance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	spec := w.pod.GetSpec()
	if name == "" {
		names := make([]string, 0, len(spec.GetContainers()))
		for _, c := range spec.GetContainers() {
			names = append(names, c.GetName())
		}
		if len(names) > 1 && !first {
			return Instance{}, fmt.Errorf("%w: pod %s has several containers, choose one of %v", ErrAmbiguous, w.name, names)
		}
		if len(names) > 0 {
			name = names[0]
		}
	}
	all := resources.Containers(w.pod)
	at := slices.IndexFunc(all, func(c *corev1.Container) bool { return c.GetName() == name })
	if at < 0 {
		return Instance{}, fmt.Errorf("%w: pod %s has no container %q", ErrNotFound, w.name, name)
	}
	in := w.instances[name]
	n := in.attempt
	if previous {
		if n == 0 {
			return Instance{}, fmt.Errorf("%w: container %s of pod %s was never restarted", ErrNotFound, name, w.name)
		}
		return Instance{LogPath: w.dir.Log(name, n-1)}, nil
	}
	// A container that waits to be started again shows the log of the attempt that ended.
	return Instance{
		ID: in.id, LogPath: w.dir.Log(name, n), Running: in.running, Ended: in.ended,
		name: name, stdin: all[at].GetStdin(), tty: all[at].GetTty(), exitCode: in.exitCode,
	}, nil
}

// podDir returns where a pod's state is.
func (c *Config) podDir(uid string) checkpoint.Dir {
	return checkpoint.Dir(filepath.Join(c.StateDir, uid))
}

// grace returns how long a pod's containers get to stop, in seconds.
func graceSeconds(pod *corev1.Pod) int64 {
	if g := pod.GetMetadata().DeletionGracePeriodSeconds; g != nil {
		return max(*g, 0)
	}
	if g := pod.GetSpec().TerminationGracePeriodSeconds; g != nil {
		return max(*g, 0)
	}
	return cmp.Or(pod.GetSpec().GetTerminationGracePeriodSeconds(), 30)
}
