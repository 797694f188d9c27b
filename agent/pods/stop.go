package pods

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/probe"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/failpoint"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// minStopWindow is the least time between a container's stop signal and SIGKILL, as in kubelet: a
// preStop hook or the containers that a sidecar waits for may have used up the grace period.
// Without any grace period there is no signal.
const minStopWindow = 2 * time.Second

// stopping is a container on its way to its end.
type stopping struct {
	// asked is when the grace period ends, deadline when the container is killed; the latter is later
	// for a container that got its signal only at the end of the grace period.
	asked, deadline time.Time
	// atOnce tells that there is no grace period.
	atOnce bool
	// hook is closed when the preStop hook is over, which stop ends.
	hook     chan struct{}
	stop     context.CancelFunc
	signaled bool
}

// cancel ends the preStop hook of a container that has ended, or is not to end any more.
func (s *stopping) cancel() {
	if s != nil && s.stop != nil {
		s.stop()
	}
}

// shorten makes the grace period end sooner. One that would end later has no effect.
func (s *stopping) shorten(asked time.Time, atOnce bool) {
	if asked.Before(s.asked) {
		s.asked, s.deadline = asked, asked
		s.atOnce = s.atOnce || atOnce
	}
}

// stopAll asks what runs to stop, and kills what still runs when the grace period since then is
// over. All preStop hooks begin at once. The signals go to the main containers first, and then to
// the sidecars, one after the other in the reverse order of their start; at the end of the grace
// period they go to all that have not got theirs. It returns 0 when nothing runs.
func (w *worker) stopAll(ctx context.Context, pod *corev1.Pod, since time.Time, grace time.Duration) (time.Duration, error) {
	var next time.Duration
	var errs []error
	for _, c := range w.containers {
		if !c.running {
			continue
		}
		if c.stopping == nil {
			w.cfg.Recorder.Event(pod, "Normal", "Killing", "Stopping container "+c.spec.GetName())
			w.beginStop(ctx, pod, c, since, grace)
		}
		// The grace period may have been cut short since.
		c.stopping.shorten(since.Add(grace), grace <= 0)
		d, err := w.stopStep(ctx, c, w.inTurn(c))
		errs = append(errs, err)
		if next == 0 || d < next {
			next = d
		}
	}
	return next, errors.Join(errs...)
}

// inTurn reports whether a container of a pod that ends may get its stop signal: a sidecar serves
// the containers after it until they have ended. Ephemeral containers are not waited for.
func (w *worker) inTurn(c *container) bool {
	if !c.init || !resources.IsSidecar(c.spec) {
		return true
	}
	after := w.containers[slices.Index(w.containers, c)+1:]
	return !slices.ContainsFunc(after, func(o *container) bool { return o.running && !o.ephemeral })
}

// beginStop starts a container's way to its end: preStop, signal, kill.
func (w *worker) beginStop(ctx context.Context, pod *corev1.Pod, c *container, since time.Time, grace time.Duration) {
	deadline := since.Add(grace)
	s := &stopping{asked: deadline, deadline: deadline, atOnce: grace <= 0, hook: make(chan struct{})}
	c.stopping = s
	hook := c.spec.GetLifecycle().GetPreStop()
	if hook == nil || !time.Now().Before(deadline) {
		close(s.hook)
		return
	}
	prober := w.prober(pod, c)
	ctx, s.stop = context.WithDeadline(ctx, deadline)
	w.wg.Go(func() {
		defer s.stop()
		if err := probe.Lifecycle(ctx, hook, prober.Target(false)); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
			w.cfg.Recorder.Event(pod, "Warning", "FailedPreStopHook", err.Error())
		}
		close(s.hook)
		w.nudge()
	})
}

// stopStep takes the next step to a container's end and returns when the one after it is due. A
// container that is not in turn gets its signal when the grace period is over.
func (w *worker) stopStep(ctx context.Context, c *container, inTurn bool) (time.Duration, error) {
	s := c.stopping
	left := time.Until(s.deadline)
	if left <= 0 && (s.signaled || s.atOnce) {
		// Its end wakes the worker; until then the kill is repeated, in case it was lost.
		return retryMax, w.cfg.Runtime.Kill(ctx, c.status.ID, syscall.SIGKILL)
	}
	if s.signaled {
		return left, nil
	}
	if left > 0 {
		select {
		case <-s.hook:
		default:
			return left, nil
		}
		if !inTurn {
			// The end of those that it waits for wakes the worker.
			return left, nil
		}
	}
	sig := c.status.StopSignal
	if name := c.spec.GetLifecycle().GetStopSignal(); name != "" {
		sig = runtime.ParseSignal(name)
	}
	if err := w.cfg.Runtime.Kill(ctx, c.status.ID, sig); err != nil {
		return 0, err
	}
	failpoint.Hit("container-signaled")
	s.signaled = true
	if left < minStopWindow {
		left = minStopWindow
		s.deadline = time.Now().Add(left)
	}
	return left, nil
}
