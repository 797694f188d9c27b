package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/failpoint"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// resizeRetry is how soon a change that found no room, or that the kernel refused, is tried again.
const resizeRetry = 5 * time.Second

// resize is how far the change of a pod's resources is.
type resize struct {
	// allotted is what the node has granted to each container, and to the pod as a whole under
	// wholePod. It is what they are bounded to, whatever the spec says, and survives the agent.
	allotted map[string]resources.Allotment
	// pending is why the node does not grant what the spec asks for now; its reason is empty when it
	// does.
	pending status.Cause
	// failed is why what was granted is not in effect, and underway tells that it is not yet, or not
	// everywhere.
	underway bool
	failed   string
	// granted is set while an allocation has not been reported as in effect.
	granted bool
	// bounds is what the pod's cgroup is bounded to.
	bounds runtime.Resources
}

// loadAllotted takes up what the previous agent granted. What it did not know yet gets what the
// spec asks for.
func (w *worker) loadAllotted(pod *corev1.Pod) error {
	if w.resize.allotted == nil {
		allotted, err := w.dir.LoadAllotted()
		if err != nil {
			return err
		}
		w.resize.allotted = allotted
	}
	missing := false
	for name, asked := range resources.Allotments(pod) {
		if _, ok := w.resize.allotted[name]; !ok {
			w.resize.allotted[name] = asked
			missing = true
		}
	}
	if !missing {
		return nil
	}
	return w.dir.SaveAllotted(w.resize.allotted)
}

// shared is what bounds a container by the pod's limits, where it has none of its own.
func (w *worker) shared(name string) map[string]string {
	out := map[string]string{}
	for resource, limit := range w.resize.allotted[resources.WholePod].Limits {
		if _, own := w.resize.allotted[name].Limits[resource]; !own {
			out[resource] = limit
		}
	}
	return out
}

// allotted is the pod with the resources that the node has granted it.
func (w *worker) allotted(pod *corev1.Pod) *corev1.Pod {
	spec := proto.CloneOf(pod.GetSpec())
	for _, c := range slices.Concat(spec.GetInitContainers(), spec.GetContainers()) {
		if a, ok := w.resize.allotted[c.GetName()]; ok {
			c.Resources = a.Requirements()
		}
	}
	if whole := w.resize.allotted[resources.WholePod]; whole.Empty() {
		spec.Resources = nil
	} else {
		spec.Resources = whole.Requirements()
	}
	return &corev1.Pod{Metadata: pod.GetMetadata(), Spec: spec, Status: pod.GetStatus()}
}

// grant gives the pod what its spec asks for, if the node has room for that. It returns when to ask
// again.
func (w *worker) grant(pod *corev1.Pod) (time.Duration, error) {
	if err := w.loadAllotted(pod); err != nil {
		return 0, err
	}
	w.resize.pending = status.Cause{}
	next := maps.Clone(w.resize.allotted)
	maps.Copy(next, resources.Allotments(pod))
	if maps.EqualFunc(next, w.resize.allotted, resources.Allotment.Equal) {
		w.claim(pod)
		return 0, nil
	}
	want, has := resources.OfPod(pod), resources.OfPod(w.allotted(pod))
	// What shrinks always fits.
	if w.cfg.room != nil && (want.MilliCPURequest > has.MilliCPURequest || want.MemoryRequest > has.MemoryRequest) {
		if why := w.cfg.room(w.uid, want); why.Reason != "" {
			w.resize.pending = why
			w.claim(w.allotted(pod))
			return resizeRetry, nil
		}
	}
	w.resize.allotted = next
	if err := w.dir.SaveAllotted(w.resize.allotted); err != nil {
		return 0, err
	}
	w.claim(pod)
	w.resize.granted = true
	w.cfg.Recorder.Event(pod, "Normal", "ResizeStarted", "The node allocated the requested resources")
	return 0, nil
}

// claim makes known what the pod has been granted, which others can't have.
func (w *worker) claim(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claimed = resources.OfPod(pod)
}

// apply brings running containers to what was granted: in place, or by a restart where the
// container asks for that.
func (w *worker) apply(ctx context.Context, pod *corev1.Pod) (time.Duration, error) {
	granted := w.allotted(pod)
	bounds := resources.OfPod(granted)
	before, failure := w.resize.underway, w.resize.failed
	w.resize.underway, w.resize.failed = false, ""
	var todo []*container
	for _, c := range w.containers {
		if _, known := w.resize.allotted[c.spec.GetName()]; !known || !c.running {
			continue
		}
		if c.rec.Applied == nil {
			// An agent that knew no resizing started it.
			a := w.resize.allotted[c.spec.GetName()]
			c.rec.Applied = &a
		}
		if !c.rec.Applied.Equal(w.resize.allotted[c.spec.GetName()]) || !maps.Equal(c.rec.Shared, w.shared(c.spec.GetName())) {
			todo = append(todo, c)
		}
	}
	if len(todo) > 0 || w.resize.bounds != bounds {
		// Before what is in the pod grows, the pod does.
		if err := w.cfg.Runtime.SetUpPod(w.uid, resources.Wider(w.resize.bounds, bounds), w.cfg.PodProcesses); err != nil {
			return 0, err
		}
	}
	for _, c := range todo {
		w.resize.underway = true
		want, shared := w.resize.allotted[c.spec.GetName()], w.shared(c.spec.GetName())
		changed := c.rec.Applied.Changes(want)
		if c.rec.Shared != nil {
			changed = append(changed, resources.LimitChanges(c.rec.Shared, shared)...)
		}
		if resources.RestartsFor(c.spec, changed) {
			c.resized = true
			continue
		}
		limits := resources.Of(granted, resources.Find(granted, c.spec.GetName()), w.cfg.MemoryBytes)
		if err := w.cfg.Runtime.Update(ctx, c.status.ID, limits); err != nil {
			w.resize.failed = err.Error()
			continue
		}
		c.rec.Applied, c.rec.Shared = &want, shared
		if err := w.dir.SaveRecord(c.spec.GetName(), c.rec); err != nil {
			return 0, err
		}
		failpoint.Hit("resize-recorded")
	}
	if w.resize.failed == "" {
		w.resize.underway = slices.ContainsFunc(todo, func(c *container) bool { return c.resized })
		if w.resize.underway {
			return 0, nil
		}
		if w.resize.bounds != bounds {
			if err := w.cfg.Runtime.SetUpPod(w.uid, bounds, w.cfg.PodProcesses); err != nil {
				w.resize.underway, w.resize.failed = true, err.Error()
			} else {
				w.resize.bounds = bounds
			}
		}
	}
	if w.resize.failed != "" {
		if failure == "" {
			w.cfg.Recorder.Event(pod, "Warning", "ResizeError", w.resize.failed)
		}
		return resizeRetry, nil
	}
	if len(todo) > 0 || before || w.resize.granted {
		w.cfg.Recorder.Event(pod, "Normal", "ResizeCompleted", "The requested resources are in effect")
		w.resize.granted = false
	}
	return 0, nil
}

// bound gives the pod its cgroup. One that is there already may have larger bounds, and an agent
// that died on the way from these to what was granted since: they stay until what runs in the pod
// keeps within the new ones.
func (w *worker) bound(pod *corev1.Pod) error {
	bounds := resources.OfPod(w.allotted(pod))
	has, err := w.cfg.Runtime.PodLimits(w.uid)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		bounds = resources.Wider(has, bounds)
	}
	if err := w.cfg.Runtime.SetUpPod(w.uid, bounds, w.cfg.PodProcesses); err != nil {
		return err
	}
	w.resize.bounds = bounds
	return nil
}

// inForce is what the node has set aside for the pod, and what is in force for the pod as a whole,
// nil if it says nothing of that.
func (w *worker) inForce(pod *corev1.Pod) (map[string]*metav1.Quantity, *corev1.ResourceRequirements) {
	granted := w.allotted(pod)
	bounds := resources.OfPod(granted)
	whole := granted.GetSpec().GetResources()
	if w.resize.bounds != bounds || w.resize.underway {
		whole = pod.GetStatus().GetResources()
	}
	granted.Spec.Overhead = nil
	requests, err := core.PodRequests(granted.GetSpec())
	if err != nil || len(requests) == 0 {
		return nil, whole
	}
	allocated := map[string]*metav1.Quantity{}
	for name, q := range requests {
		allocated[name] = &metav1.Quantity{String_: q.String()}
	}
	return allocated, whole
}

// conditions tells how far a change of the pod's resources is.
func (r *resize) conditions(pod *corev1.Pod, now time.Time) []*corev1.PodCondition {
	var out []*corev1.PodCondition
	add := func(name, reason, message string) {
		out = append(out, status.Lasting(&corev1.PodCondition{
			Type: name, Status: condition.True, Reason: reason, Message: message, LastTransitionTime: status.Stamp(now),
			ObservedGeneration: pod.GetMetadata().GetGeneration(),
		}, pod.GetStatus().GetConditions()))
	}
	if r.pending.Reason != "" {
		add(status.ResizePending, r.pending.Reason, r.pending.Message)
	}
	switch {
	case r.failed != "":
		add(status.ResizeInProgress, "Error", r.failed)
	case r.underway:
		add(status.ResizeInProgress, "", "")
	}
	return out
}

// room returns why the node can't grant a pod so much; its reason is empty when it can.
func (s *Set) room(uid string, want runtime.Resources) status.Cause {
	cpu, memory := s.cfg.Allocatable.MilliCPURequest, s.cfg.Allocatable.MemoryRequest
	var short []string
	if want.MilliCPURequest > cpu {
		short = append(short, fmt.Sprintf("cpu, requested: %dm, capacity: %dm", want.MilliCPURequest, cpu))
	}
	if want.MemoryRequest > memory {
		short = append(short, fmt.Sprintf("memory, requested: %d, capacity: %d", want.MemoryRequest, memory))
	}
	if len(short) > 0 {
		return status.Cause{Reason: status.ReasonInfeasible, Message: "Node didn't have enough capacity: " + strings.Join(short, "; ")}
	}
	s.mu.Lock()
	for other, w := range s.workers {
		if other == uid {
			continue
		}
		w.mu.Lock()
		if p := w.pod.GetStatus().GetPhase(); p != core.PodSucceeded && p != core.PodFailed {
			cpu, memory = cpu-w.claimed.MilliCPURequest, memory-w.claimed.MemoryRequest
		}
		w.mu.Unlock()
	}
	s.mu.Unlock()
	if want.MilliCPURequest > cpu {
		short = append(short, "cpu")
	}
	if want.MemoryRequest > memory {
		short = append(short, "memory")
	}
	if len(short) > 0 {
		return status.Cause{Reason: status.ReasonDeferred, Message: "Node didn't have enough resource: " + strings.Join(short, ", ")}
	}
	return status.Cause{}
}
