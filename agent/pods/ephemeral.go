package pods

import (
	"context"
	"fmt"
	"os"

	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// adoptEphemeral adds the pod's ephemeral containers to the list. They start whatever the others
// do, once, and count for nothing: not for the pod's phase, not for whether it is ready.
func (w *worker) adoptEphemeral(pod *corev1.Pod) {
	for i, spec := range core.EphemeralContainers(pod.GetSpec()) {
		if w.container(spec.GetName()) != nil {
			// It never changes.
			continue
		}
		w.containers = append(w.containers, &container{
			spec: spec, ephemeral: true, target: pod.GetSpec().GetEphemeralContainers()[i].GetTargetContainerName(),
			rec: w.dir.LoadRecord(spec.GetName()), waiting: status.Cause{Reason: status.ReasonContainerCreating},
		})
	}
}

// processNamespace returns the path of the process namespace of a container, empty for one of its
// own, and what to close once it has started: the pod's, where the containers share one, or that of
// the container that an ephemeral one looks into. The error wraps objects.ErrConfig when that one
// does not run.
func (w *worker) processNamespace(ctx context.Context, pod *corev1.Pod, c *container) (string, func(), error) {
	keep := func() {}
	shared, err := w.sharedProcesses(pod)
	if shared != "" || err != nil || c.target == "" || pod.GetSpec().GetHostPid() {
		return shared, keep, err
	}
	target := w.container(c.target)
	if target == nil || !target.running {
		return "", keep, fmt.Errorf("%w: target container %s is not running", objects.ErrConfig, c.target)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", target.status.Pid))
	if err != nil {
		return "", keep, fmt.Errorf("%w: entering container %s: %w", objects.ErrConfig, c.target, err)
	}
	// Only now is it sure that it is not the namespace of another process that got the number since.
	now, err := w.cfg.Runtime.Status(ctx, target.status.ID)
	if err != nil || now.State != runtime.Running || now.Pid != target.status.Pid {
		ns.Close()
		return "", keep, fmt.Errorf("%w: target container %s is not running", objects.ErrConfig, c.target)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()), func() { ns.Close() }, nil
}
