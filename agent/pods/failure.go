package pods

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/pods/mounts"
	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Reasons of events that tell why a pod does not get on, as Kubernetes names them.
const (
	eventFailed      = "Failed"
	eventFailedMount = "FailedMount"
	eventFailedSync  = "FailedSync"
	eventFailedKill  = "FailedKillPod"
	// eventInspectFailed tells of an image whose name is invalid.
	eventInspectFailed = "InspectFailed"
)

// problem is an error with the reason of the event that tells it.
type problem struct {
	reason string
	error
}

func (p problem) Unwrap() error { return p.error }

// eventReason is the reason of the event that tells why a container was not made.
func eventReason(err error) string {
	var p problem
	var v *mounts.VolumeError
	switch {
	case errors.As(err, &p):
		return p.reason
	case errors.As(err, &v):
		return eventFailedMount
	}
	return eventFailed
}

// eventMessage is what that event says.
func eventMessage(err error) string {
	if eventReason(err) == eventFailedMount {
		return "MountVolume.SetUp failed for " + err.Error()
	}
	return "Error: " + err.Error()
}

// reportFailure reports why a sync of the pod failed: by an event, and by the message of its
// containers that wait for creation. While the containers of a pod that ran before have not been
// observed, its status stays.
func (w *worker) reportFailure(err error) {
	pod, gone := w.desired()
	if gone {
		return
	}
	leaving := pod.GetMetadata().GetDeletionTimestamp() != nil
	reason := eventReason(err)
	switch {
	case reason != eventFailed:
	case leaving:
		reason = eventFailedKill
	default:
		reason = eventFailedSync
	}
	w.cfg.Recorder.Event(pod, "Warning", reason, err.Error())
	if phase := pod.GetStatus().GetPhase(); leaving || !w.observed && phase != core.PodPending && phase != "" {
		return
	}
	w.adoptSpec(pod)
	for _, c := range w.containers {
		if !c.running && c.pull == nil && c.waiting == (status.Cause{Reason: status.ReasonContainerCreating}) {
			c.waiting.Message = err.Error()
		}
	}
	w.publish(pod, status.Cause{}, false)
}

// fail makes known that the pod as a whole failed, and why.
func (w *worker) fail(pod *corev1.Pod, why status.Cause) {
	if !w.failed {
		w.failed = true
		w.cfg.Recorder.Event(pod, "Warning", why.Reason, why.Message)
	}
	w.publish(pod, why, false)
}

// configFailed puts off a container of which something is missing, or not as it should be. What may
// be a passing trouble of the node or the control plane is tried again sooner.
func (w *worker) configFailed(ctx context.Context, pod *corev1.Pod, c *container, err error) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, err
	}
	if errors.Is(err, objects.ErrConfig) {
		return w.makeFailed(pod, c, status.ReasonConfigError, err, w.cfg.ConfigRetry), nil
	}
	if errors.Is(err, mounts.ErrImageVolume) {
		return w.makeFailed(pod, c, status.ReasonCreateError, err, backoff(c.failures+1, w.cfg.BackoffInitial, w.cfg.BackoffMax)), nil
	}
	reason, wait := status.ReasonConfigError, min(backoff(c.failures+1, retryMin, retryMax), w.cfg.ConfigRetry)
	if eventReason(err) == eventFailedMount {
		// As in Kubernetes a pod is still being created while its volumes are.
		reason = status.ReasonContainerCreating
	}
	w.log.Warn("Failed to create container",
		zap.String(metrics.KeyContainer, c.spec.GetName()), zap.Error(err), zap.Duration(metrics.KeyRetryAfter, wait))
	return w.makeFailed(pod, c, reason, err, wait), nil
}
