package pods

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// round is one sync of a pod: what its phases pass to each other. What outlives a round is in the
// worker.
type round struct {
	// pod is what is asked of the pod, with the newest status that is known to be stored. Gone is set
	// when no source asks for the pod any more, leaving when it is gone or being deleted.
	pod           *corev1.Pod
	gone, leaving bool
	// held is set while nothing of the pod may start, because no source has confirmed it since the
	// machine started.
	held bool
	// containers are what the runtime has of the pod.
	containers []runtime.Status
	// observed is set once containers are compared with the records.
	observed bool
	// next is after what time the pod needs another round, 0 for when something wakes the worker.
	next time.Duration
	// over ends the round before the phases that are left.
	over bool
}

// after asks for another round after a time, 0 for none, unless an earlier phase asked for one
// sooner.
func (r *round) after(wait time.Duration) { r.next = sooner(r.next, wait) }

// end ends the round, without asking for more than earlier phases did.
func (r *round) end() { r.over = true }

// endAfter ends the round of a pod that starts nothing more; only this wait counts.
func (r *round) endAfter(wait time.Duration) { r.next, r.over = wait, true }

// phase is one step of a round.
type phase struct {
	name string
	run  func(w *worker, ctx context.Context, r *round) error
}

// phases are the steps of a round in their order. Each phase repeats what an earlier round or agent
// left undone, and an error ends the round, which is then repeated. A phase that waits says so in
// the pod's status or in an event.
var phases = []phase{
	// What is asked is on the disk before anything is done for it: the next agent may start without a
	// control plane.
	{"save", (*worker).saveRound},
	// Reads the pod's spec and the records on disk; writes worker.containers.
	{"containers", (*worker).adoptContainers},
	// Writes worker.resize and allotted.json. A resize without room waits with condition
	// PodResizePending.
	{"resources", (*worker).grantResources},
	// Removes the note of a termination that is no longer asked for.
	{"resumption", (*worker).resume},
	// Reads worker.unconfirmed and the sandbox's pins; writes round.held.
	{"confirmation", (*worker).checkConfirmation},
	// Containers that run are probed at the pod's address, which the observation needs. Writes
	// worker.sandbox and worker.ip.
	{"adoption", (*worker).adoptSandbox},
	// Reads the runtime; writes round.containers, round.held and each container's state, and records
	// exits before they are lost.
	{"observation", (*worker).observeContainers},
	// Phases from here on read what was observed.

	// A pod that is being deleted drains, stops, and is removed. Waits with events Killing and
	// NotDrained.
	{"termination", (*worker).terminatePod},
	// A pod that succeeded or failed stops what still runs, such as sidecars, and gives up its
	// network.
	{"completion", (*worker).completePod},
	// A pod past activeDeadlineSeconds stops and fails with DeadlineExceeded.
	{"deadline", (*worker).enforceDeadline},
	// On a node that shuts down the pod stops and fails with Terminated.
	{"shutdown", (*worker).stopForShutdown},
	// An evicted pod stops and fails with Evicted.
	{"eviction", (*worker).stopEvicted},
	// A pod that the node does not admit fails with the reason of the refusal.
	{"admission", (*worker).admit},
	// A pod that is held waits with a message on each container.
	{"hold", (*worker).hold},
	// A container's rule may restart all containers. Waits with condition AllContainersRestarting and
	// CrashLoopBackOff.
	{"restart of all", (*worker).restartAll},
	// Applies granted resources to what runs. A failure waits with condition PodResizeInProgress.
	{"resize", (*worker).resizeRunning},
	// Phases from here on start things, and each needs what the one before made.

	// Namespaces and network. A failure is the event FailedCreatePodSandBox.
	{"sandbox", (*worker).makeSandbox},
	// Files of running containers follow the objects that they show. A failure is the event
	// FailedMount.
	{"volumes", (*worker).updateVolumes},
	// Watches disk usage where the pod has limits.
	{"disk limits", (*worker).watchDisk},
	// Pulls, creates, starts and restarts; a container that waits says why in its state.
	{"start", (*worker).startContainers},
	{"status", (*worker).publishRound},
}

// sync runs one round. It returns after what time the next one is due, 0 for when something wakes
// the worker, and the name of the phase that failed.
func (w *worker) sync(ctx context.Context) (next time.Duration, failed string, err error) {
	r := &round{}
	r.pod, r.gone = w.desired()
	r.leaving = r.gone || r.pod.GetMetadata().GetDeletionTimestamp() != nil
	defer func() {
		if r.observed {
			w.note()
		}
	}()
	for _, p := range phases {
		if err := p.run(w, ctx, r); err != nil {
			return 0, p.name, err
		}
		if r.over {
			break
		}
	}
	return r.next, "", nil
}

func (w *worker) saveRound(_ context.Context, r *round) error { return w.save(r.pod) }

func (w *worker) adoptContainers(_ context.Context, r *round) error {
	w.adoptSpec(r.pod)
	return nil
}

func (w *worker) grantResources(_ context.Context, r *round) error {
	wait, err := w.grant(r.pod)
	r.after(wait)
	return err
}

func (w *worker) resume(_ context.Context, r *round) error {
	if r.leaving {
		return nil
	}
	return w.stay()
}

func (w *worker) checkConfirmation(_ context.Context, r *round) (err error) {
	r.held, err = w.held()
	return err
}

func (w *worker) adoptSandbox(ctx context.Context, r *round) error {
	if !r.leaving && !r.held && !w.done(r.pod) && w.refused(r.pod).Reason == "" {
		// What fails here fails again in the sandbox phase, which reports it.
		_ = w.ensureSandbox(ctx, r.pod)
	}
	return nil
}

func (w *worker) observeContainers(ctx context.Context, r *round) (err error) {
	if r.containers, err = w.cfg.Runtime.List(ctx, w.uid); err != nil {
		return err
	}
	r.held = r.held && w.heldBack(r.containers)
	if err := w.observe(ctx, r.pod, r.containers); err != nil {
		return err
	}
	r.observed = true
	return nil
}

func (w *worker) terminatePod(ctx context.Context, r *round) error {
	if !r.leaving {
		return nil
	}
	wait, err := w.terminate(ctx, r.pod, r.gone)
	r.endAfter(wait)
	return err
}

func (w *worker) completePod(ctx context.Context, r *round) error {
	if !w.done(r.pod) {
		return nil
	}
	wait, err := w.stopNow(ctx, r.pod)
	if err == nil && wait == 0 {
		err = w.tearDown(ctx)
	}
	w.publish(r.pod, status.Cause{}, false)
	r.endAfter(wait)
	return err
}

func (w *worker) enforceDeadline(ctx context.Context, r *round) error {
	failed, left := w.deadline(r.pod)
	if !failed {
		r.after(left)
		return nil
	}
	wait, err := w.stopNow(ctx, r.pod)
	if err == nil && wait == 0 {
		w.fail(r.pod, status.Cause{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"})
	}
	r.endAfter(wait)
	return err
}

func (w *worker) stopForShutdown(ctx context.Context, r *round) error {
	ending, wait, err := w.endForShutdown(ctx, r.pod)
	if ending {
		r.after(wait)
		r.end()
	}
	return err
}

func (w *worker) stopEvicted(ctx context.Context, r *round) error {
	evicted, wait, err := w.endEvicted(ctx, r.pod)
	if evicted {
		r.after(wait)
		r.end()
	}
	return err
}

func (w *worker) admit(_ context.Context, r *round) error {
	if why := w.refused(r.pod); why.Reason != "" {
		w.fail(r.pod, why)
		r.end()
	}
	return nil
}

func (w *worker) hold(_ context.Context, r *round) error {
	if r.held {
		w.wait(r.pod)
		r.end()
	}
	return nil
}

func (w *worker) restartAll(ctx context.Context, r *round) error {
	renewing, wait, err := w.renew(ctx, r.pod)
	if renewing {
		w.publish(r.pod, status.Cause{}, false)
		r.after(wait)
		r.end()
	}
	return err
}

func (w *worker) resizeRunning(ctx context.Context, r *round) error {
	wait, err := w.apply(ctx, r.pod)
	r.after(wait)
	return err
}

func (w *worker) makeSandbox(ctx context.Context, r *round) error {
	if err := w.ensureSandbox(ctx, r.pod); err != nil {
		return problem{"FailedCreatePodSandBox", err}
	}
	w.cleaned = false
	return nil
}

func (w *worker) updateVolumes(ctx context.Context, r *round) error {
	r.after(w.refreshVolumes(ctx, r.pod))
	return nil
}

func (w *worker) watchDisk(ctx context.Context, r *round) error {
	w.measure(ctx, r.pod)
	return nil
}

// startContainers takes each container's next steps. An init container holds back those after it,
// until its end, or its start when it is a sidecar. One container's failure does not hold back
// others.
func (w *worker) startContainers(ctx context.Context, r *round) error {
	w.retryImages()
	var errs []error
	blocked := false
	for _, c := range w.containers {
		if blocked && !c.ephemeral {
			c.waiting = status.Cause{Reason: status.ReasonPodInitializing}
			continue
		}
		wait, err := w.advance(ctx, r.pod, c)
		errs = append(errs, err)
		r.after(wait)
		if c.init {
			blocked = !status.Initialized([]status.Container{w.view(r.pod, c)})
		}
	}
	return errors.Join(errs...)
}

func (w *worker) publishRound(_ context.Context, r *round) error {
	// A client that reads in the status that a container runs may attach to it immediately.
	w.note()
	w.publish(r.pod, status.Cause{}, false)
	return nil
}

// stopNow stops all containers within the pod's grace period from now on. It returns after what
// time to look again, 0 when nothing runs.
func (w *worker) stopNow(ctx context.Context, pod *corev1.Pod) (time.Duration, error) {
	return w.stopAll(ctx, pod, time.Now(), time.Duration(graceSeconds(pod))*time.Second)
}

// phaseField names a phase in log lines.
func phaseField(name string) zap.Field { return zap.String(metrics.KeyPhase, name) }
