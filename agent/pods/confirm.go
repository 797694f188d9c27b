package pods

import (
	"slices"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/sandbox"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// A pod that a previous agent ran is known from what that agent saved, before its source is heard:
// the control plane or, for a static pod, its file. What of it lives on goes on. After a restart of
// the machine nothing of it lives, and it may have been deleted meanwhile, or its StatefulSet may
// have it elsewhere: it starts only when its source has said that it still exists, as with kubelet.

// messageUnconfirmed is shown for the containers of a pod that waits for that.
const messageUnconfirmed = "waiting for the control plane to confirm the pod after the node's restart"

// Confirm tells that the source of a pod still has it, as Update does, without a change.
func (s *Set) Confirm(uid string) {
	s.mu.Lock()
	w := s.workers[uid]
	s.mu.Unlock()
	if w != nil {
		w.confirm()
	}
}

func (w *worker) confirm() {
	w.mu.Lock()
	news := w.unconfirmed
	w.unconfirmed = false
	w.mu.Unlock()
	if news {
		w.nudge()
	}
}

// held reports whether the pod must not start anything yet, before the first container of it is
// looked for.
func (w *worker) held() (bool, error) {
	w.mu.Lock()
	unconfirmed := w.unconfirmed
	w.mu.Unlock()
	if !unconfirmed || w.lives {
		return false, nil
	}
	var err error
	w.lives, err = sandbox.Exists(w.dir.Sandbox())
	return !w.lives, err
}

// heldBack reports whether that is so now that the pod's containers are known: those of a pod that
// has no namespaces of its own are all that can tell that it lives. One that has just ended tells
// it too, for its shim is there.
func (w *worker) heldBack(list []runtime.Status) bool {
	w.lives = slices.ContainsFunc(list, func(s runtime.Status) bool { return s.State != runtime.Created })
	return !w.lives
}

// wait shows that the pod waits for its source.
func (w *worker) wait(pod *corev1.Pod) {
	for _, c := range w.containers {
		if c.rec.Exit == nil || restarts(pod, c) {
			c.waiting = status.Cause{Reason: status.ReasonContainerCreating, Message: messageUnconfirmed}
		}
	}
	w.log.Info("Pod waits for confirmation after the node's restart", zap.Int(metrics.KeyContainers, len(w.containers)))
	w.publish(pod, status.Cause{}, false)
}
