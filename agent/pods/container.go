package pods

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/health"
	"github.com/xebec-project/xebec/agent/pods/mounts"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/probe"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/failpoint"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// maxMessage is how much of a termination message is kept.
const maxMessage = 4 << 10

// container is one container of a pod; it belongs to the worker's goroutine but for what health
// guards.
type container struct {
	spec *corev1.Container
	init bool
	// ephemeral tells that it was added to look into the pod; target is the container whose processes
	// it sees.
	ephemeral bool
	target    string
	rec       checkpoint.Record

	running bool
	status  runtime.Status
	// waiting is why the container does not run, when it is to.
	waiting status.Cause
	// image is that of the coming attempt, once it is there.
	image *images.Image
	pull  *pull
	// failures counts failed attempts to make the container; the last was at failedAt, the next is due
	// at retryAt.
	failures          int
	failedAt, retryAt time.Time
	// failedImage is the name of the image that could not be pulled.
	failedImage string

	// entered is called when the coming attempt has started.
	entered func()

	// What follows is of the running attempt.
	endedCh   chan struct{}
	exitCode  *atomic.Int32
	attending context.CancelFunc
	health    *health.Health
	stopping  *stopping
	// resized tells that it has to be restarted for a change of its resources.
	resized bool
}

func (w *worker) view(pod *corev1.Pod, c *container) status.Container {
	v := status.Container{
		Spec: c.spec, Rec: c.rec, Running: c.running, Waiting: c.waiting, Passed: w.passed(c),
		ID: runtime.ID(w.uid, c.spec.GetName(), c.rec.Attempt),
	}
	if a, ok := w.resize.allotted[c.spec.GetName()]; ok {
		v.Allotted = &a
	}
	if c.running {
		v.Mounts = mounts.Statuses(c.spec, w.cfg.Runtime.ReadOnlyBelow)
		v.Started, v.Ready, _ = c.health.Get()
		v.Ready = v.Ready && (c.stopping == nil || pod.GetMetadata().GetDeletionTimestamp() != nil)
	}
	v.Ready = v.Ready && !c.ephemeral
	if c.init && !resources.IsSidecar(c.spec) {
		// One that has done its work is ready, as Kubernetes shows it.
		v.Ready = c.rec.Exit != nil && c.rec.Exit.Code == 0
	}
	if c.rec.Exit != nil && !c.running {
		phase := pod.GetStatus().GetPhase()
		again := restarts(pod, c) || w.renewal != nil && !c.ephemeral
		v.Over = !again || phase == core.PodSucceeded || phase == core.PodFailed || pod.GetMetadata().GetDeletionTimestamp() != nil
	}
	return v
}

// passed reports whether a container that waits for an init container has begun at some time.
func (w *worker) passed(c *container) bool {
	at := slices.Index(w.containers, c)
	return c.init && slices.ContainsFunc(w.containers[at+1:], func(after *container) bool { return !after.ephemeral && after.rec.Begun() })
}

// restarts reports whether a terminated container will be started again.
func restarts(pod *corev1.Pod, c *container) bool {
	if c.ephemeral {
		return false
	}
	if c.init && !resources.IsSidecar(c.spec) && c.rec.Exit.Code == 0 {
		return false
	}
	if core.RestartRule(c.spec, c.rec.Exit.Code) != nil {
		// By a rule it is restarted, alone or with all others.
		return true
	}
	policy := cmp.Or(pod.GetSpec().GetRestartPolicy(), "Always")
	if c.spec.RestartPolicy != nil {
		policy = c.spec.GetRestartPolicy()
	}
	switch policy {
	case "Never":
		return false
	case "OnFailure":
		return c.rec.Exit.Code != 0
	}
	return true
}

// advance takes the container's next steps, and returns when there is more to do.
func (w *worker) advance(ctx context.Context, pod *corev1.Pod, c *container) (time.Duration, error) {
	if c.running {
		return w.watchOver(ctx, pod, c)
	}
	if c.rec.Exit != nil {
		if !restarts(pod, c) {
			return 0, nil
		}
		if wait := w.restartIn(c); wait > 0 {
			if c.rec.Exit.Reason != status.ReasonStartError {
				c.waiting = status.Cause{
					Reason:  status.ReasonCrashLoop,
					Message: fmt.Sprintf("back-off %v restarting failed container %s", w.crashBackoff(c), c.spec.GetName()),
				}
			}
			return wait, nil
		}
		next := c.rec.Next()
		next.Crashes++
		if err := w.nextAttempt(c, next); err != nil {
			return 0, err
		}
	}
	if wait := time.Until(c.retryAt); wait > 0 {
		return c.backOff(wait), nil
	}
	if ready, wait := w.ensureImages(ctx, pod, c); !ready {
		return wait, nil
	}
	return w.start(ctx, pod, c)
}

func (w *worker) crashBackoff(c *container) time.Duration {
	crashes := c.rec.Crashes
	if c.rec.Exit.FinishedAt.Sub(c.rec.Exit.StartedAt) >= checkpoint.StableAfter {
		crashes = 0
	}
	return backoff(crashes, w.cfg.BackoffInitial, w.cfg.BackoffMax)
}

func (w *worker) restartIn(c *container) time.Duration {
	return time.Until(c.rec.Exit.FinishedAt.Add(w.crashBackoff(c)))
}

// nextAttempt advances to the container's next attempt, the record of which it is given. From here
// on the attempt before is history.
func (w *worker) nextAttempt(c *container, rec checkpoint.Record) error {
	if err := w.dir.SaveRecord(c.spec.GetName(), rec); err != nil {
		return err
	}
	failpoint.Hit("attempt-recorded")
	c.rec, c.image = rec, nil
	for _, path := range []string{w.dir.Log(c.spec.GetName(), rec.Attempt-2), w.dir.Message(c.spec.GetName(), rec.Attempt-1)} {
		// What can't be removed now goes with the pod.
		_ = os.Remove(path)
		_ = os.Remove(path + ".1")
	}
	return nil
}

// start makes and starts the coming attempt.
func (w *worker) start(ctx context.Context, pod *corev1.Pod, c *container) (time.Duration, error) {
	cfg, err := w.containerConfig(ctx, pod, c)
	if err != nil {
		return w.configFailed(ctx, pod, c, err)
	}
	began := time.Now()
	s, err := w.cfg.Runtime.Start(ctx, cfg)
	c.entered()
	switch {
	case errors.Is(err, runtime.ErrCreate):
		// The image may have been removed meanwhile.
		c.image = nil
		return w.makeFailed(pod, c, status.ReasonCreateError, err, backoff(c.failures+1, w.cfg.BackoffInitial, w.cfg.BackoffMax)), nil
	case errors.Is(err, runtime.ErrStart):
		w.cfg.Recorder.Event(pod, "Warning", "Failed", "Error: "+err.Error())
		c.waiting = status.Cause{Reason: status.ReasonRunError, Message: err.Error()}
		c.rec.Image, c.rec.ImageID, c.rec.Asked = c.image.Name, c.image.Digest, c.spec.GetImage()
		e := &checkpoint.Exit{
			ContainerID: runtime.ID(w.uid, cfg.Name, cfg.Attempt),
			Code:        status.StartErrorCode,
			Reason:      status.ReasonStartError,
			Message:     err.Error(),
			StartedAt:   began,
			FinishedAt:  time.Now(),
		}
		if err := w.ended(c, e); err != nil {
			return 0, err
		}
		// A restart is up to the next round.
		return time.Millisecond, nil
	case err != nil:
		return 0, err
	}
	c.rec.Image, c.rec.ImageID, c.rec.Asked, c.rec.StartedAt = c.image.Name, c.image.Digest, c.spec.GetImage(), time.Now()
	if a, ok := w.resize.allotted[c.spec.GetName()]; ok {
		c.rec.Applied, c.rec.Shared = &a, w.shared(c.spec.GetName())
	}
	if err := w.dir.SaveRecord(c.spec.GetName(), c.rec); err != nil {
		return 0, err
	}
	failpoint.Hit("start-recorded")
	c.failures, c.running, c.status, c.waiting = 0, s.State == runtime.Running, s, status.Cause{Reason: status.ReasonContainerCreating}
	w.cfg.Recorder.Event(pod, "Normal", "Created", "Created container "+c.spec.GetName())
	w.cfg.Recorder.Event(pod, "Normal", "Started", "Started container "+c.spec.GetName())
	w.log.Info(
		"Container started",
		zap.String(metrics.KeyContainer, c.spec.GetName()),
		zap.Int(metrics.KeyAttempt, c.rec.Attempt),
		zap.Duration(metrics.KeyDuration, time.Since(began)),
	)
	if !c.running {
		// It has ended already.
		return time.Millisecond, nil
	}
	return 0, w.attend(ctx, pod, c)
}

func (w *worker) makeFailed(pod *corev1.Pod, c *container, reason string, err error, wait time.Duration) time.Duration {
	c.failures++
	c.retryAt = time.Now().Add(wait)
	c.waiting = status.Cause{Reason: reason, Message: err.Error()}
	w.cfg.Recorder.Event(pod, "Warning", eventReason(err), eventMessage(err))
	return wait
}

// attend sees to it that the worker learns of the running attempt's end and of its health. It is
// idempotent.
func (w *worker) attend(ctx context.Context, pod *corev1.Pod, c *container) error {
	if c.attending != nil {
		return nil
	}
	if c.rec.StartedAt.IsZero() {
		// The agent was killed between starting the container and recording it.
		c.rec.StartedAt, c.rec.Image = c.status.CreatedAt, c.status.Image
		if err := w.dir.SaveRecord(c.spec.GetName(), c.rec); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	c.attending, c.endedCh = cancel, ended
	id := c.status.ID
	w.wg.Go(func() {
		// containerd may go away and come back any number of times.
		for retry := retryMin; ; retry = min(2*retry, retryMax) {
			_, err := w.cfg.Runtime.Wait(ctx, id)
			if ctx.Err() != nil {
				return
			}
			if err == nil || errors.Is(err, runtime.ErrNotFound) {
				w.nudge()
				return
			}
			timer := time.NewTimer(retry)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
		}
	})
	c.exitCode = &atomic.Int32{}
	c.exitCode.Store(unknownExit)
	if err := w.cfg.Runtime.RestoreStreams(ctx, id, w.streamConfig(c)); err != nil {
		w.log.Warn("Failed to restore the container's streams", zap.String(metrics.KeyContainer, c.spec.GetName()), zap.Error(err))
	}
	health, wasStarted := health.New(pod.GetStatus(), c.spec, id)
	c.health = health
	prober, startedAt := w.prober(pod, c), c.rec.StartedAt
	w.wg.Go(func() { prober.Run(ctx, startedAt, health) })
	if hook := c.spec.GetLifecycle().GetPostStart(); hook != nil && !wasStarted {
		w.wg.Go(func() {
			if err := probe.Lifecycle(ctx, hook, prober.Target(false)); err != nil && ctx.Err() == nil {
				w.cfg.Recorder.Event(pod, "Warning", "FailedPostStartHook", err.Error())
				health.Fail(fmt.Errorf("postStart hook failed: %w", err))
				w.nudge()
			}
		})
	}
	return nil
}

// prober returns what runs the probes and hooks of a container's running attempt.
func (w *worker) prober(pod *corev1.Pod, c *container) health.Prober {
	return health.Prober{
		Runtime: w.cfg.Runtime, Changed: w.nudge, Pod: w.ip, Spec: c.spec, ID: c.status.ID,
		Event: func(eventType, reason, message string) { w.cfg.Recorder.Event(pod, eventType, reason, message) },
	}
}

// watchOver stops a running container that must be restarted.
func (w *worker) watchOver(ctx context.Context, pod *corev1.Pod, c *container) (time.Duration, error) {
	if c.stopping == nil {
		_, _, failed := c.health.Get()
		switch {
		case failed != nil:
			w.cfg.Recorder.Event(pod, "Normal", "Killing", fmt.Sprintf("Container %s %v, will be restarted", c.spec.GetName(), failed))
		case c.rec.Asked != "" && c.rec.Asked != c.spec.GetImage():
			w.cfg.Recorder.Event(pod, "Normal", "Killing", fmt.Sprintf("Container %s definition changed, will be restarted", c.spec.GetName()))
		case c.resized:
			w.cfg.Recorder.Event(pod, "Normal", "Killing", fmt.Sprintf("Container %s resize requires restart", c.spec.GetName()))
		default:
			return 0, nil
		}
		grace := graceSeconds(pod)
		if p := c.spec.GetLivenessProbe(); failed != nil && p.GetTerminationGracePeriodSeconds() > 0 {
			grace = p.GetTerminationGracePeriodSeconds()
		}
		w.beginStop(ctx, pod, c, time.Now(), time.Duration(grace)*time.Second)
	}
	return w.stopStep(ctx, c, true)
}

// exitOf reads how an attempt ended, before what tells is removed.
func (w *worker) exitOf(c *container, s runtime.Status) *checkpoint.Exit {
	e := &checkpoint.Exit{ContainerID: s.ID, Code: int32(s.ExitCode), StartedAt: c.rec.StartedAt, FinishedAt: s.ExitedAt}
	if e.StartedAt.IsZero() {
		e.StartedAt = s.CreatedAt
	}
	switch {
	case w.cfg.Runtime.OOMKilled(s) && s.ExitCode != 0:
		e.Reason = status.ReasonOOMKilled
	case s.ExitCode == 0:
		e.Reason = status.ReasonCompleted
	default:
		e.Reason = status.ReasonError
	}
	b, err := readHead(w.dir.Message(c.spec.GetName(), c.rec.Attempt))
	if err == nil {
		e.Message = string(bytes.ToValidUTF8(b, []byte("?")))
	}
	return e
}

// logTail is the end of an attempt's log, for a container with terminationMessagePolicy
// FallbackToLogsOnError.
func (w *worker) logTail(c *container, code int32) string {
	if code == 0 || c.spec.GetTerminationMessagePolicy() != "FallbackToLogsOnError" {
		return ""
	}
	var tail bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := logs.Read(ctx, w.dir.Log(c.spec.GetName(), c.rec.Attempt), logs.Options{Tail: 80}, nil, &tail); err != nil {
		return ""
	}
	b := tail.Bytes()
	return string(bytes.ToValidUTF8(b[max(0, len(b)-maxMessage/2):], []byte("?")))
}

func readHead(path string) ([]byte, error) {
	// A link, or a pipe without a writer, is no message.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, maxMessage)
	n, err := f.Read(b)
	return b[:n], err
}

// ended records how the current attempt ended. The readers of its log are notified later, by
// endFollowers.
func (w *worker) ended(c *container, e *checkpoint.Exit) error {
	rec := c.rec
	rec.Exit = e
	if err := w.dir.SaveRecord(c.spec.GetName(), rec); err != nil {
		return err
	}
	failpoint.Hit("exit-recorded")
	c.rec, c.running = rec, false
	if c.exitCode != nil {
		c.exitCode.Store(e.Code)
	}
	c.detach()
	w.log.Info(
		"Container ended",
		zap.String(metrics.KeyContainer, c.spec.GetName()),
		zap.Int(metrics.KeyAttempt, rec.Attempt),
		zap.Int32(metrics.KeyExitCode, e.Code),
		zap.String(metrics.KeyReason, e.Reason),
	)
	return nil
}

// detach ends what goes on about the running attempt.
func (c *container) detach() {
	if c.attending != nil {
		c.attending()
	}
	c.stopping.cancel()
	c.attending, c.health, c.stopping, c.resized = nil, nil, nil, false
}

// endFollowers tells those who follow the attempt's log that there is no more to come.
func (c *container) endFollowers() {
	if c.endedCh != nil {
		close(c.endedCh)
	}
	c.endedCh = nil
}

func (c *container) stopAttending() {
	c.detach()
	c.endFollowers()
}

func (w *worker) stopAttending() {
	for _, c := range w.containers {
		c.stopAttending()
	}
}
