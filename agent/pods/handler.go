package pods

import (
	"context"
	"errors"
	"fmt"

	"github.com/xebec-project/xebec/agent/sandbox"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// errUserNamespaces is why a pod with hostUsers false does not start, in kubelet's words.
var errUserNamespaces = errors.New("can't set `spec.hostUsers: false`, runtime does not support user namespaces")

// checkRuntime finds the pod's runtime handler, and fails for a pod that the node's runtime can't
// run. What it finds is stored: a class that is deleted or can't be read keeps no container of the
// pod from being restarted.
func (w *worker) checkRuntime(ctx context.Context, pod *corev1.Pod) error {
	spec := pod.GetSpec()
	if spec.HostUsers != nil && !spec.GetHostUsers() {
		// Pods that an earlier agent started go on.
		if started, err := sandbox.Exists(w.dir.Sandbox()); err != nil || !started {
			return errors.Join(err, errUserNamespaces)
		}
	}
	class := spec.GetRuntimeClassName()
	if class == "" {
		return nil
	}
	handler, known := w.dir.LoadHandler()
	if !known {
		c, err := w.cfg.Cluster.RuntimeClass(ctx, class)
		if err != nil {
			return err
		}
		handler = c.GetHandler()
	}
	if err := w.cfg.Runtime.CheckHandler(handler); err != nil {
		return fmt.Errorf("failed to get sandbox runtime: %w", err)
	}
	w.handler = handler
	if known {
		return nil
	}
	return w.dir.SaveHandler(handler)
}
