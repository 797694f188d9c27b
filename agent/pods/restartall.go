package pods

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// asked returns the renewal that a container asks for by its end, nil when none does.
func (w *worker) asked() *checkpoint.Renewal {
	for _, c := range w.containers {
		e := c.rec.Exit
		if e == nil || c.ephemeral || c.init && !resources.IsSidecar(c.spec) && e.Code == 0 {
			continue
		}
		if core.RestartRule(c.spec, e.Code).GetAction() == core.RestartRuleRestartAll {
			return &checkpoint.Renewal{Container: c.spec.GetName(), Code: e.Code}
		}
	}
	return nil
}

// renew stops the containers of a pod whose containers all restart, and advances each to its next
// attempt. It returns false when no restart is requested, or it is done.
func (w *worker) renew(ctx context.Context, pod *corev1.Pod) (renewing bool, next time.Duration, err error) {
	if w.renewal == nil {
		r := w.asked()
		if r == nil {
			return false, 0, nil
		}
		if err := w.dir.SaveRenewal(r); err != nil {
			return true, 0, err
		}
		w.renewal = r
		w.cfg.Recorder.Event(pod, "Normal", status.AllRestarting, r.String())
	}
	// As in Kubernetes there is neither time nor a hook for what ends so: it begins again at once.
	if next, err := w.stopAll(ctx, pod, time.Now(), 0); next > 0 || err != nil {
		return true, next, err
	}
	by := w.container(w.renewal.Container)
	if by != nil && by.rec.Exit != nil {
		if wait := w.restartIn(by); wait > 0 {
			for _, c := range w.containers {
				c.waiting = status.Cause{
					Reason: status.ReasonCrashLoop,
					Message: fmt.Sprintf(
						"back-off %v restarting all containers: %s exited with code %d",
						w.crashBackoff(by),
						w.renewal.Container,
						w.renewal.Code,
					),
				}
			}
			return true, wait, nil
		}
	}
	for _, c := range w.containers {
		if c.ephemeral {
			continue
		}
		rec := c.rec
		switch {
		case rec.Exit != nil:
			rec = rec.Next()
			if c == by {
				rec.Crashes++
			}
		case rec.Renewed == rec.Attempt:
			// It has not started, or an agent died after it was its turn.
			continue
		}
		rec.Renewed = rec.Attempt
		if err := w.nextAttempt(c, rec); err != nil {
			return true, 0, err
		}
		c.waiting = status.Cause{Reason: status.ReasonContainerCreating}
	}
	if err := w.dir.ForgetRenewal(); err != nil {
		return true, 0, err
	}
	w.renewal = nil
	return true, time.Millisecond, nil
}

// renewing is the condition that tells of a renewal, nil for a pod of which no container can ask
// for one.
func (w *worker) renewing(pod *corev1.Pod, now time.Time) *corev1.PodCondition {
	asks := func(c *corev1.Container) bool {
		return slices.ContainsFunc(
			c.GetRestartPolicyRules(),
			func(r *corev1.ContainerRestartRule) bool { return r.GetAction() == core.RestartRuleRestartAll },
		)
	}
	if !slices.ContainsFunc(slices.Concat(pod.GetSpec().GetInitContainers(), pod.GetSpec().GetContainers()), asks) {
		return nil
	}
	c := &corev1.PodCondition{
		Type:               status.AllRestarting,
		Status:             condition.False,
		LastTransitionTime: status.Stamp(now),
		ObservedGeneration: pod.GetMetadata().GetGeneration(),
	}
	if p := pod.GetStatus().GetPhase(); w.renewal != nil && p != core.PodSucceeded && p != core.PodFailed {
		c.Status, c.Reason, c.Message = condition.True, status.ReasonContainerExited, w.renewal.String()
	}
	return status.Lasting(c, pod.GetStatus().GetConditions())
}
