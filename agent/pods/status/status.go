// Package status computes the status of a pod from what was observed of its containers, and writes
// it to the control plane.
package status

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Reasons, as Kubernetes names them.
const (
	ReasonContainerCreating = "ContainerCreating"
	ReasonPodInitializing   = "PodInitializing"
	ReasonCrashLoop         = "CrashLoopBackOff"
	ReasonErrImagePull      = "ErrImagePull"
	ReasonImagePullBackOff  = "ImagePullBackOff"
	ReasonErrImageNeverPull = "ErrImageNeverPull"
	ReasonInvalidImageName  = "InvalidImageName"
	ReasonConfigError       = "CreateContainerConfigError"
	ReasonCreateError       = "CreateContainerError"
	ReasonRunError          = "RunContainerError"
	ReasonStartError        = "StartError"
	ReasonCompleted         = "Completed"
	ReasonError             = "Error"
	ReasonOOMKilled         = "OOMKilled"
	ReasonUnknown           = "ContainerStatusUnknown"

	StartErrorCode = 128
	UnknownCode    = 137
)

// Cause is why a container does not run.
type Cause struct{ Reason, Message string }

// Container is what was seen of one container.
type Container struct {
	Spec *corev1.Container
	Rec  checkpoint.Record
	// Running reports that its process runs.
	Running bool
	// Waiting is the cause why it does not, when it never started or will be restarted.
	Waiting Cause
	// Over reports that it terminated and will not be restarted.
	Over           bool
	Ready, Started bool
	// Passed tells that a container that waits for this one has begun at some time.
	Passed bool
	// Allotted is what the node has granted it, nil while that is not known.
	Allotted *resources.Allotment
	// Mounts tells how volumes are mounted, where that depends on the node.
	Mounts []*corev1.VolumeMountStatus
	ID     string
}

// Observation is what a status is computed from.
type Observation struct {
	Init, Main, Ephemeral []Container
	// Network tells that the sandbox is made and connected, ip its address.
	Network bool
	IP      netip.Addr
	HostIP  netip.Addr
	// IP6 and HostIP6 are the IPv6 addresses, invalid if there are none.
	IP6, HostIP6 netip.Addr
	// Failed, when its reason is not empty, is why the pod as a whole failed.
	Failed Cause
	// Renewing reports that all containers are being restarted.
	Renewing bool
	// More are the conditions that not every pod has: those of a change of resources, and of all
	// containers' restart.
	More []*corev1.PodCondition
	// Allocated is what the node has set aside for the pod, and resources what is in force for the pod
	// as a whole, nil if it says nothing of that.
	Allocated map[string]*metav1.Quantity
	Resources *corev1.ResourceRequirements
	// Began is when the pod came to the node.
	Began, Now time.Time
}

// Of computes a pod's status. It takes from the status before only what the agent does not decide
// (conditions of others, the nominated node) and times.
func Of(pod *corev1.Pod, s Observation) *corev1.PodStatus {
	old := pod.GetStatus()
	st := &corev1.PodStatus{
		NominatedNodeName:  old.GetNominatedNodeName(),
		StartTime:          old.GetStartTime(),
		QosClass:           core.PodQOS(pod.GetSpec()),
		ObservedGeneration: pod.GetMetadata().GetGeneration(),
		AllocatedResources: s.Allocated,
		Resources:          s.Resources,
	}
	if st.StartTime == nil {
		st.StartTime = Stamp(s.Began)
	}
	if s.HostIP.IsValid() {
		st.HostIp = s.HostIP.String()
		st.HostIps = []*corev1.HostIP{{Ip: st.HostIp}}
		if s.HostIP6.IsValid() {
			st.HostIps = append(st.HostIps, &corev1.HostIP{Ip: s.HostIP6.String()})
		}
	}
	if s.IP.IsValid() {
		st.PodIp = s.IP.String()
		st.PodIps = []*corev1.PodIP{{Ip: st.PodIp}}
		if s.IP6.IsValid() {
			st.PodIps = append(st.PodIps, &corev1.PodIP{Ip: s.IP6.String()})
		}
	}
	for _, v := range s.Init {
		st.InitContainerStatuses = append(st.InitContainerStatuses, containerStatus(v))
	}
	for _, v := range s.Main {
		st.ContainerStatuses = append(st.ContainerStatuses, containerStatus(v))
	}
	for _, v := range s.Ephemeral {
		st.EphemeralContainerStatuses = append(st.EphemeralContainerStatuses, containerStatus(v))
	}
	st.Phase = podPhase(pod, s)
	if s.Failed.Reason != "" {
		st.Phase, st.Reason, st.Message = core.PodFailed, s.Failed.Reason, s.Failed.Message
	}
	if st.Phase == old.GetPhase() && st.Reason == "" && (st.Phase == core.PodFailed || st.Phase == core.PodSucceeded) {
		st.Reason, st.Message = old.GetReason(), old.GetMessage()
	}
	if st.Phase == core.PodFailed && st.Reason != "" {
		neverBegun(st)
	}
	st.Conditions = append(conditions(pod, s, st.Phase), s.More...)
	if s.Failed.Reason == ReasonEvicted {
		st.Conditions = append(st.Conditions, &corev1.PodCondition{
			Type: core.PodDisruptionTarget, Status: condition.True, Reason: core.TerminationByKubelet, Message: s.Failed.Message,
			LastTransitionTime: Stamp(s.Now),
		})
	}
	return st
}

func containerStatus(v Container) *corev1.ContainerStatus {
	cs := &corev1.ContainerStatus{
		Name:         v.Spec.GetName(),
		Image:        v.Spec.GetImage(),
		RestartCount: int32(v.Rec.Attempt),
		Ready:        v.Ready,
		Started:      proto.Bool(v.Started),
		State:        &corev1.ContainerState{},
		VolumeMounts: v.Mounts,
	}
	if v.Rec.Image != "" {
		cs.Image, cs.ImageId = v.Rec.Image, v.Rec.ImageID
	}
	if v.ID != "" && !v.Rec.StartedAt.IsZero() {
		cs.ContainerId = "containerd://" + v.ID
	}
	if v.Allotted != nil && (len(v.Allotted.Requests) > 0 || len(v.Allotted.Limits) > 0) {
		cs.AllocatedResources = v.Allotted.Requirements().Requests
		if v.Running && v.Rec.Applied != nil {
			cs.Resources = v.Rec.Applied.Requirements()
		}
	}
	switch {
	case v.Running:
		cs.State.Running = &corev1.ContainerStateRunning{StartedAt: Stamp(v.Rec.StartedAt)}
	case v.Over && v.Rec.Exit != nil:
		cs.State.Terminated = terminated(v.Rec.Exit)
	default:
		cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: v.Waiting.Reason, Message: v.Waiting.Message}
	}
	switch {
	case v.Rec.Exit != nil && cs.State.Terminated == nil:
		cs.LastState = &corev1.ContainerState{Terminated: terminated(v.Rec.Exit)}
	case v.Rec.Last != nil:
		cs.LastState = &corev1.ContainerState{Terminated: terminated(v.Rec.Last)}
	}
	return cs
}

func terminated(e *checkpoint.Exit) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: e.Code, Reason: e.Reason, Message: e.Message, StartedAt: Stamp(e.StartedAt), FinishedAt: Stamp(e.FinishedAt),
	}
	if e.ContainerID != "" {
		t.ContainerId = "containerd://" + e.ContainerID
	}
	return t
}

// Stamp turns a time into the API's, whose precision is a second.
func Stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Truncate(time.Second))
}

// Initialized reports whether the main containers may run. A sidecar that ended once they had is
// not waited for again: the pod may have come to its end with it.
func Initialized(init []Container) bool { return len(incomplete(init)) == 0 }

// incomplete returns the names of the init containers that the main containers wait for.
func incomplete(init []Container) []string {
	var names []string
	for _, v := range init {
		done := v.Over && v.Rec.Exit != nil && v.Rec.Exit.Code == 0
		if resources.IsSidecar(v.Spec) {
			done = v.Started || v.Passed
		}
		if !done {
			names = append(names, v.Spec.GetName())
		}
	}
	return names
}

func podPhase(pod *corev1.Pod, s Observation) string {
	if p := pod.GetStatus().GetPhase(); p == core.PodSucceeded || p == core.PodFailed {
		return p
	}
	for _, v := range s.Init {
		if !resources.IsSidecar(v.Spec) && v.Over && v.Rec.Exit != nil && v.Rec.Exit.Code != 0 {
			return core.PodFailed
		}
	}
	if s.Renewing || !Initialized(s.Init) {
		return core.PodPending
	}
	over, good := 0, 0
	for _, v := range s.Main {
		switch {
		case v.Over:
			over++
			if v.Rec.Exit != nil && v.Rec.Exit.Code == 0 {
				good++
			}
		case !v.Running && !v.Rec.Begun():
			// One that has not started yet keeps the pod pending.
			return core.PodPending
		}
	}
	switch {
	case over < len(s.Main) || len(s.Main) == 0:
		return core.PodRunning
	case good == over:
		return core.PodSucceeded
	}
	return core.PodFailed
}

// ownConditions are the conditions that the agent decides.
var ownConditions = []string{
	core.PodReadyToStartContainers, core.PodInitialized, core.PodReady, core.PodContainersReady, core.PodScheduled,
	ResizePending, ResizeInProgress, AllRestarting,
}

func conditions(pod *corev1.Pod, s Observation, phase string) []*corev1.PodCondition {
	old := pod.GetStatus().GetConditions()
	var out []*corev1.PodCondition
	set := func(name string, ok bool, reason, message string) {
		c := &corev1.PodCondition{
			Type: name, Status: condition.False, Reason: reason, Message: message,
			ObservedGeneration: pod.GetMetadata().GetGeneration(), LastTransitionTime: Stamp(s.Now),
		}
		if ok {
			c.Status, c.Reason, c.Message = condition.True, "", ""
		}
		if phase == core.PodSucceeded && (name == core.PodReady || name == core.PodContainersReady) {
			c.Reason = "PodCompleted"
		}
		out = append(out, Lasting(c, old))
	}
	var unready []string
	for _, v := range slices.Concat(s.Init, s.Main) {
		if !v.Ready && (slices.Contains(pod.GetSpec().GetContainers(), v.Spec) || resources.IsSidecar(v.Spec)) {
			unready = append(unready, v.Spec.GetName())
		}
	}
	gates := ""
	for _, g := range pod.GetSpec().GetReadinessGates() {
		if !slices.ContainsFunc(old, func(c *corev1.PodCondition) bool {
			return c.GetType() == g.GetConditionType() && c.GetStatus() == condition.True
		}) {
			gates = g.GetConditionType()
		}
	}
	// A pod that is being deleted is as ready as its probes say: its endpoints are taken out by its
	// deletion timestamp, and a service without any other goes on with those that still serve.
	containers := len(unready) == 0 && phase == core.PodRunning
	reason, message := "ContainersNotReady", "containers with unready status: "+formatList(unready)
	waitedFor := incomplete(s.Init)
	set(core.PodReadyToStartContainers, s.Network, "", "")
	set(core.PodInitialized, len(waitedFor) == 0, "ContainersNotInitialized", "containers with incomplete status: "+formatList(waitedFor))
	if containers && gates != "" {
		set(core.PodReady, false, "ReadinessGatesNotReady", fmt.Sprintf("the status of pod readiness gate %q is not \"True\"", gates))
	} else {
		set(core.PodReady, containers, reason, message)
	}
	set(core.PodContainersReady, containers, reason, message)
	set(core.PodScheduled, true, "", "")
	for _, c := range old {
		if !slices.Contains(ownConditions, c.GetType()) {
			out = append(out, c)
		}
	}
	return out
}

// Lasting is a condition with the time since which it has been as it is, by what it was before.
func Lasting(c *corev1.PodCondition, old []*corev1.PodCondition) *corev1.PodCondition {
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
	ResizePending    = "PodResizePending"
	ResizeInProgress = "PodResizeInProgress"

	ReasonInfeasible = "Infeasible"
	ReasonDeferred   = "Deferred"
)

const (
	// AllRestarting is the condition that reports whether all containers of a pod are on their way to
	// their next attempts.
	AllRestarting = "AllContainersRestarting"
	// ReasonContainerExited is why: one of them exited, and its rule restarts all.
	ReasonContainerExited = "ContainerExited"
)

// ReasonEvicted is why a pod failed that used more of the node than it may.
const ReasonEvicted = "Evicted"

// neverBegun gives the containers of a pod that failed as a whole, and that will never be created,
// the pod's own reason: otherwise it would look as if they were about to be.
func neverBegun(st *corev1.PodStatus) {
	for _, cs := range slices.Concat(st.GetInitContainerStatuses(), st.GetContainerStatuses()) {
		if w := cs.GetState().GetWaiting(); w.GetReason() == ReasonContainerCreating || w.GetReason() == ReasonPodInitializing {
			w.Reason, w.Message = st.GetReason(), st.GetMessage()
		}
	}
}
