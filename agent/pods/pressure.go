package pods

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/security"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/volumes"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Active returns the pods that run something and are not on their way out.
func (s *Set) Active() []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*corev1.Pod
	for _, w := range s.workers {
		if pod := w.active(); pod != nil {
			out = append(out, pod)
		}
	}
	return out
}

func (w *worker) active() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone || w.pod.GetMetadata().GetDeletionTimestamp() != nil {
		return nil
	}
	for _, in := range w.instances {
		if in.running {
			return w.pod
		}
	}
	return nil
}

// Evict ends a pod for good: it fails with reason Evicted. Its containers get so much time to stop.
// A pod that is not on the node is no error.
func (s *Set) Evict(uid, message string, grace time.Duration) {
	s.mu.Lock()
	w := s.workers[uid]
	s.mu.Unlock()
	if w != nil {
		w.evict("", message, grace)
	}
}

// DiskUsage returns the bytes of disk that a pod's volumes, logs and containers take; those in
// memory and those of images do not count.
func (s *Set) DiskUsage(ctx context.Context, uid string) (int64, error) {
	dir := s.cfg.podDir(uid)
	own, err := volumes.Usage(string(dir), s.imageDirs(uid)...)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	written, err := s.cfg.Runtime.DiskUsage(ctx, uid)
	for _, n := range written {
		own += n
	}
	return own, err
}

// imageDirs are the paths in a pod's directory at which files of images are mounted.
func (s *Set) imageDirs(uid string) []string {
	s.mu.Lock()
	w := s.workers[uid]
	s.mu.Unlock()
	if w == nil {
		return nil
	}
	pod, _ := w.desired()
	var out []string
	for _, v := range pod.GetSpec().GetVolumes() {
		if v.GetVolumeSource().GetImage() != nil {
			out = append(out, checkpoint.Dir("").Volume(v.GetName()))
		}
	}
	return out
}

// refused returns why the node does not run a pod. What it did not take at first it does not take
// later either; what it has taken it goes on with.
func (w *worker) refused(pod *corev1.Pod) status.Cause {
	if why := security.Forbidden(pod); why.Reason != "" {
		return why
	}
	if w.cfg.Admit == nil || pod.GetStatus().GetStartTime() != nil {
		return status.Cause{}
	}
	if why := w.cfg.Admit(pod); why != "" {
		return status.Cause{Reason: status.ReasonEvicted, Message: why}
	}
	return status.Cause{}
}
