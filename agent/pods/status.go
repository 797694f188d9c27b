package pods

import (
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Reasons, as Kubernetes names them.
const (
	reasonContainerCreating = "ContainerCreating"
	reasonPodInitializing   = "PodInitializing"
	reasonCrashLoop         = "CrashLoopBackOff"
	reasonErrImagePull      = "ErrImagePull"
	reasonImagePullBackOff  = "ImagePullBackOff"
	reasonErrImageNeverPull = "ErrImageNeverPull"
	reasonInvalidImageName  = "InvalidImageName"
	reasonConfigError       = "CreateContainerConfigError"
	reasonCreateError       = "CreateContainerError"
	reasonRunError          = "RunContainerError"
	reasonStartError        = "StartError"
	reasonCompleted         = "Completed"
	reasonError             = "Error"
	reasonOOMKilled         = "OOMKilled"
	reasonUnknown           = "ContainerStatusUnknown"

	startErrorCode = 128
	unknownCode    = 137
)

// cause is why a container does not run.
type cause struct{ reason, message string }

// view is what was seen of one container.
type view struct {
	spec *corev1.Container
	rec  record
	// running tells that its process runs.
	running bool
	// waiting is why it does not, when it never started or is to be started again.
	waiting cause
	// over tells that it ended and is not to be started again.
	over           bool
	ready, started bool
	// passed tells that a container that waits for this one has begun at some time.
	passed bool
	// allotted is what the node has granted it, nil while that is not known.
	allotted *allotment
	// mounts tells how volumes are mounted, where that depends on the node.
	mounts []*corev1.VolumeMountStatus
	id     string
}

// seen is what a status is computed from.
type seen struct {
	init, main, ephemeral []view
	// network tells that the sandbox is made and connected, ip its address.
	network bool
	ip      netip.Addr
	hostIP  netip.Addr
	// ip6 and hostIP6 are the IPv6 addresses, invalid if there are none.
	ip6, hostIP6 netip.Addr
	// failed, when its reason is not empty, is why the pod as a whole failed.
	failed cause
	// renewing tells that all containers are to be started anew.
	renewing bool
	// more are the conditions that not every pod has: those of a change of resources, and of all containers' restart.
	more []*corev1.PodCondition
	// allocated is what the node has set aside for the pod, and resources what is in force for the pod as a whole, nil if it
	// says nothing of that.
	allocated map[string]*metav1.Quantity
	resources *corev1.ResourceRequirements
	// began is when the pod came to the node.
	began, now time.Time
}

// podStatus computes a pod's status. It takes from the status before only what the agent does not decide (conditions of
// others, the nominated node) and times.
func podStatus(pod *corev1.Pod, s seen) *corev1.PodStatus {
	old := pod.GetStatus()
	st := &corev1.PodStatus{
		NominatedNodeName:  old.GetNominatedNodeName(),
		StartTime:          old.GetStartTime(),
		QosClass:           kind.PodQOS(pod.GetSpec()),
		ObservedGeneration: pod.GetMetadata().GetGeneration(),
		AllocatedResources: s.allocated,
		Resources:          s.resources,
	}
	if st.StartTime == nil {
		st.StartTime = stamp(s.began)
	}
	if s.hostIP.IsValid() {
		st.HostIp = s.hostIP.String()
		st.HostIps = []*corev1.HostIP{{Ip: st.HostIp}}
		if s.hostIP6.IsValid() {
			st.HostIps = append(st.HostIps, &corev1.HostIP{Ip: s.hostIP6.String()})
		}
	}
	if s.ip.IsValid() {
		st.PodIp = s.ip.String()
		st.PodIps = []*corev1.PodIP{{Ip: st.PodIp}}
		if s.ip6.IsValid() {
			st.PodIps = append(st.PodIps, &corev1.PodIP{Ip: s.ip6.String()})
		}
	}
	for _, v := range s.init {
		st.InitContainerStatuses = append(st.InitContainerStatuses, containerStatus(v))
	}
	for _, v := range s.main {
		st.ContainerStatuses = append(st.ContainerStatuses, containerStatus(v))
	}
	for _, v := range s.ephemeral {
		st.EphemeralContainerStatuses = append(st.EphemeralContainerStatuses, containerStatus(v))
	}
	st.Phase = podPhase(pod, s)
	if s.failed.reason != "" {
		st.Phase, st.Reason, st.Message = kind.PodFailed, s.failed.reason, s.failed.message
	}
	if st.Phase == old.GetPhase() && st.Reason == "" && (st.Phase == kind.PodFailed || st.Phase == kind.PodSucceeded) {
		st.Reason, st.Message = old.GetReason(), old.GetMessage()
	}
	if st.Phase == kind.PodFailed && st.Reason != "" {
		neverBegun(st)
	}
	st.Conditions = append(conditions(pod, s, st.Phase), s.more...)
	if s.failed.reason == reasonEvicted {
		st.Conditions = append(st.Conditions, &corev1.PodCondition{
			Type: kind.PodDisruptionTarget, Status: "True", Reason: "TerminationByKubelet", Message: s.failed.message, LastTransitionTime: stamp(s.now),
		})
	}
	return st
}

func containerStatus(v view) *corev1.ContainerStatus {
	cs := &corev1.ContainerStatus{
		Name:         v.spec.GetName(),
		Image:        v.spec.GetImage(),
		RestartCount: int32(v.rec.Attempt),
		Ready:        v.ready,
		Started:      proto.Bool(v.started),
		State:        &corev1.ContainerState{},
		VolumeMounts: v.mounts,
	}
	if v.rec.Image != "" {
		cs.Image, cs.ImageId = v.rec.Image, v.rec.ImageID
	}
	if v.id != "" && !v.rec.StartedAt.IsZero() {
		cs.ContainerId = "containerd://" + v.id
	}
	if v.allotted != nil && (len(v.allotted.Requests) > 0 || len(v.allotted.Limits) > 0) {
		cs.AllocatedResources = v.allotted.requirements().Requests
		if v.running && v.rec.Applied != nil {
			cs.Resources = v.rec.Applied.requirements()
		}
	}
	switch {
	case v.running:
		cs.State.Running = &corev1.ContainerStateRunning{StartedAt: stamp(v.rec.StartedAt)}
	case v.over && v.rec.Exit != nil:
		cs.State.Terminated = terminated(v.rec.Exit)
	default:
		cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: v.waiting.reason, Message: v.waiting.message}
	}
	switch {
	case v.rec.Exit != nil && cs.State.Terminated == nil:
		cs.LastState = &corev1.ContainerState{Terminated: terminated(v.rec.Exit)}
	case v.rec.Last != nil:
		cs.LastState = &corev1.ContainerState{Terminated: terminated(v.rec.Last)}
	}
	return cs
}

func terminated(e *exit) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: e.Code, Reason: e.Reason, Message: e.Message, StartedAt: stamp(e.StartedAt), FinishedAt: stamp(e.FinishedAt),
	}
	if e.ContainerID != "" {
		t.ContainerId = "containerd://" + e.ContainerID
	}
	return t
}

// stamp turns a time into the API's, whose precision is a second.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Truncate(time.Second))
}

// initialized tells whether the main containers may run. A sidecar that ended once they had is not waited for again: the
// pod may have come to its end with it.
func initialized(init []view) bool {
	for _, v := range init {
		done := v.over && v.rec.Exit != nil && v.rec.Exit.Code == 0
		if sidecar(v.spec) {
			done = v.started || v.passed
		}
		if !done {
			return false
		}
	}
	return true
}

func podPhase(pod *corev1.Pod, s seen) string {
	if p := pod.GetStatus().GetPhase(); p == kind.PodSucceeded || p == kind.PodFailed {
		return p
	}
	for _, v := range s.init {
		if !sidecar(v.spec) && v.over && v.rec.Exit != nil && v.rec.Exit.Code != 0 {
			return kind.PodFailed
		}
	}
	if s.renewing || !initialized(s.init) {
		return kind.PodPending
	}
	over, good := 0, 0
	for _, v := range s.main {
		switch {
		case v.over:
			over++
			if v.rec.Exit != nil && v.rec.Exit.Code == 0 {
				good++
			}
		case !v.running && !v.rec.begun():
			// One that has not started yet keeps the pod pending.
			return kind.PodPending
		}
	}
	switch {
	case over < len(s.main) || len(s.main) == 0:
		return kind.PodRunning
	case good == over:
		return kind.PodSucceeded
	}
	return kind.PodFailed
}

// ownConditions are the conditions that the agent decides.
var ownConditions = []string{
	kind.PodReadyToStartContainers, kind.PodInitialized, kind.PodReady, kind.PodContainersReady, kind.PodScheduled,
	resizePending, resizeInProgress, allRestarting,
}

func conditions(pod *corev1.Pod, s seen, phase string) []*corev1.PodCondition {
	old := pod.GetStatus().GetConditions()
	var out []*corev1.PodCondition
	set := func(name string, ok bool, reason, message string) {
		c := &corev1.PodCondition{
			Type: name, Status: "False", Reason: reason, Message: message,
			ObservedGeneration: pod.GetMetadata().GetGeneration(), LastTransitionTime: stamp(s.now),
		}
		if ok {
			c.Status, c.Reason, c.Message = "True", "", ""
		}
		if phase == kind.PodSucceeded && (name == kind.PodReady || name == kind.PodContainersReady) {
			c.Reason = "PodCompleted"
		}
		out = append(out, lasting(c, old))
	}
	var unready []string
	for _, v := range slices.Concat(s.init, s.main) {
		if !v.ready && (slices.Contains(pod.GetSpec().GetContainers(), v.spec) || sidecar(v.spec)) {
			unready = append(unready, v.spec.GetName())
		}
	}
	gates := ""
	for _, g := range pod.GetSpec().GetReadinessGates() {
		if !slices.ContainsFunc(old, func(c *corev1.PodCondition) bool {
			return c.GetType() == g.GetConditionType() && c.GetStatus() == "True"
		}) {
			gates = g.GetConditionType()
		}
	}
	// A pod that is being deleted is as ready as its probes say: its endpoints are taken out by its deletion timestamp, and
	// a service without any other goes on with those that still serve.
	containers := len(unready) == 0 && phase == kind.PodRunning
	reason, message := "ContainersNotReady", "containers with unready status: "+formatList(unready)
	initDone := initialized(s.init)
	set(kind.PodReadyToStartContainers, s.network, "", "")
	set(kind.PodInitialized, initDone, "ContainersNotInitialized", "init containers have not all ended well")
	if containers && gates != "" {
		set(kind.PodReady, false, "ReadinessGatesNotReady", "condition "+gates+" is not true")
	} else {
		set(kind.PodReady, containers, reason, message)
	}
	set(kind.PodContainersReady, containers, reason, message)
	set(kind.PodScheduled, true, "", "")
	for _, c := range old {
		if !slices.Contains(ownConditions, c.GetType()) {
			out = append(out, c)
		}
	}
	return out
}

// lasting is a condition with the time since which it has been as it is, by what it was before.
func lasting(c *corev1.PodCondition, old []*corev1.PodCondition) *corev1.PodCondition {
	c.LastTransitionTime = condition.Since(old, c.GetType(), c.GetStatus(), c.GetLastTransitionTime().AsTime())
	return c
}

func formatList(names []string) string {
	out := "["
	for i, n := range names {
		if i > 0 {
			out += " "
		}
		out += n
	}
	return out + "]"
}

// Conditions of a pod whose resources are being changed, and why a change waits, as in Kubernetes.
const (
	resizePending    = "PodResizePending"
	resizeInProgress = "PodResizeInProgress"

	reasonInfeasible = "Infeasible"
	reasonDeferred   = "Deferred"
)

const (
	// allRestarting is the condition that tells whether all containers of a pod are on their way to their next attempts.
	allRestarting         = "AllContainersRestarting"
	reasonContainerExited = "ContainerExited"
)

// reasonEvicted is why a pod failed that used more of the node than it may.
const reasonEvicted = "Evicted"

// neverBegun gives the containers of a pod that failed as a whole, and that will never be created, the pod's own reason:
// otherwise it would look as if they were about to be.
func neverBegun(st *corev1.PodStatus) {
	for _, cs := range slices.Concat(st.GetInitContainerStatuses(), st.GetContainerStatuses()) {
		if w := cs.GetState().GetWaiting(); w.GetReason() == reasonContainerCreating || w.GetReason() == reasonPodInitializing {
			w.Reason, w.Message = st.GetReason(), st.GetMessage()
		}
	}
}
