package pods

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/etc"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/pods/tokens"
	"github.com/xebec-project/xebec/agent/reaper"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/sandbox"
	"github.com/xebec-project/xebec/agent/volumes"
	"github.com/xebec-project/xebec/internal/failpoint"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var (
	// ErrNotFound is returned for pods and containers that are not on the node.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous is returned when a container must be named and is not.
	ErrAmbiguous = errors.New("no container named")
)

const (
	retryMin = 200 * time.Millisecond
	retryMax = 5 * time.Second
)

// worker runs one pod.
type worker struct {
	cfg             *Config
	uid             string
	namespace, name string
	dir             checkpoint.Dir
	log             *zap.Logger
	publisher       *status.Publisher
	wake            chan struct{}
	// began is when the pod came to the node: its start time, if the control plane does not have one
	// yet.
	began time.Time
	// finished is set before run returns when nothing of the pod is left.
	finished bool
	wg       sync.WaitGroup

	// mu guards what the set and the pod's goroutines write and rounds read.
	mu   sync.Mutex
	pod  *corev1.Pod
	gone bool
	// removed is set once the control plane no longer has the pod. Again is the pod that it has had
	// under the same uid since: that one starts when this one has ended.
	removed bool
	again   *corev1.Pod
	// unconfirmed is set while only the previous agent's state has the pod.
	unconfirmed bool
	// newImages is set when images were imported, so that failed pulls are due.
	newImages bool
	// stale is set when the objects that volumes show may have changed.
	stale bool
	// evicted is why and how the node evicts the pod.
	evicted evicted
	// ending is set when the node shuts down.
	ending *shutdown

	// What follows belongs to the worker's goroutine; mu also guards the next two, which rounds write
	// and the set reads.

	// instances are the containers as the last round observed them, by name.
	instances map[string]seenInstance
	// claimed is what the pod holds of the node's resources.
	claimed runtime.Resources

	// saved is the pod as it was last saved. Phase save.
	saved *corev1.Pod
	// containers are those of the spec, and those that run without being in it. Phase containers.
	containers []*container
	// resize is what the node granted. Phases resources and resize.
	resize resize
	// lives is set when something of an unconfirmed pod was there when the agent started. Phases
	// confirmation and observation.
	lives bool
	// observed is set once a round has observed the containers.
	observed bool
	// stays is set when no termination is noted on disk. Phases resumption and termination.
	stays bool
	// drained is closed when the pod has left the service maps, nil before that is asked for. Phase
	// termination.
	drained chan struct{}
	// cleaned is set when nothing is left that the pod's containers shared. Phases termination,
	// completion and sandbox.
	cleaned bool
	// failed is set when the event of the pod's failure was recorded. Phases deadline and admission.
	failed bool
	// renewal is set while all containers restart. Phase restart of all.
	renewal *checkpoint.Renewal
	// handler is the name of its runtime handler, empty for the default. Phases adoption and sandbox.
	handler string
	// sandbox and ip are the pod's namespaces and address, valid when connected. Phases adoption and
	// sandbox.
	sandbox   sandbox.Sandbox
	connected bool
	ip        netip.Addr
	// volumes are the paths of the volumes that exist, shown the metadata in their files, tokens the
	// service account tokens in them. Phases volumes and start.
	volumes map[string]string
	// volumeImages are the full names of the images whose files become volumes, by the volumes' names,
	// once they are on the node. Phase start.
	volumeImages map[string]string
	shown        *metav1.ObjectMeta
	tokens       *tokens.Store
	// measuring is set when disk usage is watched, counted when the eviction for it was counted.
	// Phases disk limits and eviction.
	measuring, counted bool
}

type seenInstance struct {
	id      string
	attempt int
	running bool
	ended   <-chan struct{}
	// exitCode is that of the attempt once ended is closed.
	exitCode *atomic.Int32
}

func newWorker(cfg *Config, pod *corev1.Pod, gone bool) *worker {
	m := pod.GetMetadata()
	w := &worker{
		cfg: cfg, uid: m.GetUid(), namespace: m.GetNamespace(), name: m.GetName(), dir: cfg.podDir(m.GetUid()),
		log:  cfg.Log.With(zap.String(metrics.KeyPod, m.GetNamespace()+"/"+m.GetName()), zap.String(metrics.KeyUID, m.GetUid())),
		wake: make(chan struct{}, 1), pod: pod, gone: gone,
		instances: map[string]seenInstance{}, volumes: map[string]string{}, volumeImages: map[string]string{},
	}
	w.began = w.dir.LoadBegan(pod)
	w.renewal = w.dir.LoadRenewal()
	w.tokens = tokens.New(cfg.Cluster, w.dir)
	w.ip, _ = netip.ParseAddr(pod.GetStatus().GetPodIp())
	w.publisher = status.NewPublisher(cfg.Cluster, w.log, w.forgotten)
	return w
}

// update changes what is asked of the pod.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	if w.removed {
		w.again = pod
	} else {
		w.pod = pod
	}
	w.unconfirmed = false
	w.mu.Unlock()
	w.nudge()
}

// remove ends the pod; it is no longer asked for.
func (w *worker) remove() {
	w.mu.Lock()
	w.gone, w.removed, w.again = true, true, nil
	w.mu.Unlock()
	w.nudge()
}

// forgotten ends the pod, for there was none by its name and uid when its status was to be written.
// Updates may be on their way that were made before that.
func (w *worker) forgotten() {
	w.mu.Lock()
	w.gone = true
	w.mu.Unlock()
	w.nudge()
}

// askedAgain returns the pod that is to follow this one under its uid, nil for none.
func (w *worker) askedAgain() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.again
}

func (w *worker) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// desired returns what is asked of the pod, with the newest status that is known to be stored.
func (w *worker) desired() (pod *corev1.Pod, gone bool) {
	w.mu.Lock()
	pod, gone = w.pod, w.gone
	w.mu.Unlock()
	if latest := w.publisher.Latest(pod); latest != pod {
		pod = &corev1.Pod{Metadata: pod.GetMetadata(), Spec: pod.GetSpec(), Status: latest.GetStatus()}
	}
	return pod, gone
}

func (w *worker) leaving() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone || w.pod.GetMetadata().GetDeletionTimestamp() != nil
}

// run works until ctx ends or the pod is gone without a trace.
func (w *worker) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer w.wg.Wait()
	defer cancel()
	defer w.cfg.followers.Follow(w, nil)
	w.wg.Go(func() { w.publisher.Run(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := retryMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		next, failed, err := w.sync(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.log.Warn("Failed to sync pod", phaseField(failed), zap.Error(err), zap.Duration(metrics.KeyRetryAfter, retry))
			w.reportFailure(err)
			next = retry + rand.N(retry/2)
			retry = min(2*retry, retryMax)
		default:
			retry = retryMin
		}
		if w.finished {
			return
		}
		// With no wait the worker sleeps until woken.
		timer.Stop()
		if next > 0 {
			timer.Reset(next)
		}
	}
}

// save keeps what is asked of the pod for an agent that can't ask the control plane.
func (w *worker) save(pod *corev1.Pod) error {
	old := w.saved
	same := old != nil && proto.Equal(old.GetSpec(), pod.GetSpec()) && proto.Equal(old.GetStatus(), pod.GetStatus()) &&
		proto.Equal(old.GetMetadata().GetDeletionTimestamp(), pod.GetMetadata().GetDeletionTimestamp()) &&
		old.GetMetadata().GetDeletionGracePeriodSeconds() == pod.GetMetadata().GetDeletionGracePeriodSeconds()
	if same {
		return nil
	}
	if err := checkpoint.SaveMessage(w.dir.Pod(), pod); err != nil {
		return err
	}
	if err := w.dir.SaveBegan(pod, w.began); err != nil {
		return err
	}
	w.saved = pod
	return nil
}

// adoptSpec makes the list of containers that of the spec, with what is recorded of each.
func (w *worker) adoptSpec(pod *corev1.Pod) {
	specs := slices.Concat(pod.GetSpec().GetInitContainers(), pod.GetSpec().GetContainers())
	for i, spec := range specs {
		at := slices.IndexFunc(w.containers, func(c *container) bool { return c.spec.GetName() == spec.GetName() })
		if at >= 0 {
			w.containers[at].spec = spec
			continue
		}
		w.containers = append(w.containers, &container{
			spec: spec, init: i < len(pod.GetSpec().GetInitContainers()), rec: w.dir.LoadRecord(spec.GetName()),
			waiting: status.Cause{Reason: status.ReasonContainerCreating},
		})
	}
	w.adoptEphemeral(pod)
}

func (w *worker) container(name string) *container {
	for _, c := range w.containers {
		if c.spec.GetName() == name {
			return c
		}
	}
	return nil
}

// note makes what was seen known to those who look for containers.
func (w *worker) note() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.containers {
		in := seenInstance{id: runtime.ID(w.uid, c.spec.GetName(), c.rec.Attempt), attempt: c.rec.Attempt, running: c.running}
		if c.running {
			in.ended, in.exitCode = c.endedCh, c.exitCode
		}
		w.instances[c.spec.GetName()] = in
	}
}

// done reports whether the pod has reached its end by itself.
func (w *worker) done(pod *corev1.Pod) bool {
	p := pod.GetStatus().GetPhase()
	if p == core.PodSucceeded || p == core.PodFailed {
		return true
	}
	init, main, _ := w.views(pod)
	for _, v := range init {
		if !resources.IsSidecar(v.Spec) && v.Over && v.Rec.Exit != nil && v.Rec.Exit.Code != 0 {
			return true
		}
	}
	return len(main) > 0 && !slices.ContainsFunc(main, func(v status.Container) bool { return !v.Over })
}

// retryImages makes failed pulls due when images came onto the node.
func (w *worker) retryImages() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.newImages {
		return
	}
	w.newImages = false
	for _, c := range w.containers {
		switch c.waiting.Reason {
		case status.ReasonErrImagePull, status.ReasonImagePullBackOff, status.ReasonErrImageNeverPull:
			c.retryAt = time.Time{}
		}
	}
}

func (w *worker) ensureSandbox(ctx context.Context, pod *corev1.Pod) error {
	if w.connected {
		return nil
	}
	spec := pod.GetSpec()
	if err := w.checkRuntime(ctx, pod); err != nil {
		return fmt.Errorf("failed to create pod sandbox: %w", err)
	}
	if err := w.bound(pod); err != nil {
		return err
	}
	s, _, err := sandbox.Create(sandbox.Config{
		Dir: w.dir.Sandbox(), Hostname: etc.Hostname(pod, w.cfg.ClusterDomain), HostNetwork: spec.GetHostNetwork(), HostIPC: spec.GetHostIpc(),
	})
	if err != nil {
		return err
	}
	w.sandbox, w.ip = s, w.cfg.HostIP
	if !spec.GetHostNetwork() {
		if w.ip, err = w.cfg.Network.Setup(ctx, pod, s.Net); err != nil {
			return fmt.Errorf("connecting the pod: %w", err)
		}
	}
	if err := etc.Write(w.dir, pod, w.ip, w.cfg.ipv6(w.ip), w.cfg.DNS, w.cfg.ClusterDomain); err != nil {
		return fmt.Errorf("writing the pod's files: %w", err)
	}
	failpoint.Hit("pod-etc-written")
	w.connected = true
	return nil
}

// tearDown removes what the pod's containers shared; none runs any more. It is idempotent.
func (w *worker) tearDown(ctx context.Context) error {
	if w.cleaned {
		return nil
	}
	var errs []error
	if err := w.cfg.Network.Teardown(ctx, w.uid); err != nil {
		errs = append(errs, fmt.Errorf("disconnecting the pod: %w", err))
	}
	errs = append(
		errs,
		reaper.End(w.processes()),
		sandbox.Remove(w.dir.Sandbox()),
		// Files of images are unmounted before they are removed.
		volumes.Remove(w.dir.Volume("")),
		w.cfg.Runtime.RemovePod(ctx, w.uid),
	)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	failpoint.Hit("pod-cleaned-up")
	w.connected, w.cleaned = false, true
	clear(w.volumes)
	clear(w.volumeImages)
	w.cfg.followers.Follow(w, nil)
	return nil
}

// views returns what was seen of the containers: those that initialize, those that do the pod's
// work, and ephemeral ones.
func (w *worker) views(pod *corev1.Pod) (init, main, ephemeral []status.Container) {
	for _, c := range w.containers {
		switch v := w.view(pod, c); {
		case c.init:
			init = append(init, v)
		case c.ephemeral:
			ephemeral = append(ephemeral, v)
		default:
			main = append(main, v)
		}
	}
	return init, main, ephemeral
}

func (w *worker) publish(pod *corev1.Pod, failed status.Cause, final bool) {
	s := status.Observation{Network: w.connected, IP: w.ip, HostIP: w.cfg.HostIP, Failed: failed, Began: w.began, Now: time.Now()}
	s.Renewing, s.More = w.renewal != nil, w.resize.conditions(pod, s.Now)
	if c := w.renewing(pod, s.Now); c != nil {
		s.More = append(s.More, c)
	}
	s.Allocated, s.Resources = w.inForce(pod)
	s.Init, s.Main, s.Ephemeral = w.views(pod)
	if !s.IP.IsValid() {
		s.IP, _ = netip.ParseAddr(pod.GetStatus().GetPodIp())
	}
	s.IP6, s.HostIP6 = w.cfg.ipv6(s.IP), w.cfg.ipv6(s.HostIP)
	w.mu.Lock()
	known := w.pod
	w.mu.Unlock()
	w.publisher.Publish(known, status.Of(pod, s), final)
}

// stay takes a termination back that is not asked for any more: the pod was being deleted when the
// control plane went back to a backup of before that.
func (w *worker) stay() error {
	if w.stays {
		return nil
	}
	if err := w.dir.ForgetTermination(); err != nil {
		return fmt.Errorf("removing the termination: %w", err)
	}
	for _, c := range w.containers {
		c.stopping.cancel()
		c.stopping = nil
	}
	w.stays, w.drained = true, nil
	return nil
}

// terminate brings the pod to its end and removes it.
func (w *worker) terminate(ctx context.Context, pod *corev1.Pod, gone bool) (time.Duration, error) {
	w.stays = false
	since, err := w.dir.TerminatingSince(time.Now())
	if err != nil {
		return 0, fmt.Errorf("storing the termination: %w", err)
	}
	grace := time.Duration(graceSeconds(pod)) * time.Second
	running := slices.ContainsFunc(w.containers, func(c *container) bool { return c.running })
	if running {
		w.publish(pod, status.Cause{}, false)
		if wait := w.drain(ctx, pod, gone, since, grace); wait > 0 {
			return wait, nil
		}
		if next, err := w.stopAll(ctx, pod, since, grace); next > 0 || err != nil {
			return next, err
		}
		// What has just ended is seen in the next round.
		return time.Millisecond, nil
	}
	w.stopAttending()
	if err := w.tearDown(ctx); err != nil {
		return 0, err
	}
	if !gone {
		for _, c := range w.containers {
			if c.rec.Exit == nil {
				c.waiting = status.Cause{}
				c.rec.Exit = &checkpoint.Exit{
					Code:    status.UnknownCode,
					Reason:  status.ReasonUnknown,
					Message: "the pod was deleted before the container started",
				}
			}
		}
		w.publish(pod, status.Cause{}, true)
		return 0, nil
	}
	if err := w.dir.Remove(); err != nil {
		return 0, fmt.Errorf("removing the directory of the pod: %w", err)
	}
	w.finished = true
	return 0, nil
}
