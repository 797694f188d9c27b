package hollow

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/agent/registration"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/version"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func (n *node) metadata() *metav1.ObjectMeta {
	return &metav1.ObjectMeta{
		Name:   n.name,
		Labels: map[string]string{core.LabelHostname: n.name, core.LabelOS: "linux", core.LabelHollow: "true"},
	}
}

// status computes the node's status, and keeps what others set in the stored one.
func (n *node) status(_ context.Context, stored *corev1.NodeStatus, now time.Time) *corev1.NodeStatus {
	st := proto.CloneOf(stored)
	if st == nil {
		st = &corev1.NodeStatus{}
	}
	room := map[string]*metav1.Quantity{
		"cpu": {String_: "64"}, "memory": {String_: "256Gi"}, "ephemeral-storage": {String_: "1Ti"}, "pods": {String_: fmt.Sprint(n.cfg.MaxPods)},
	}
	st.Capacity, st.Allocatable = room, room
	st.Addresses = []*corev1.NodeAddress{{Type: core.NodeInternalIP, Address: n.address.String()}, {Type: "Hostname", Address: n.name}}
	st.NodeInfo = &corev1.NodeSystemInfo{
		KubeletVersion: version.Version(), OperatingSystem: "linux", OsImage: "hollow", ContainerRuntimeVersion: "hollow://0",
	}
	for _, c := range []*corev1.NodeCondition{
		{Type: core.NodeReady, Status: condition.True, Reason: "KubeletReady"},
		{
			Type: "MemoryPressure", Status: condition.False, Reason: "KubeletHasSufficientMemory",
			Message: "kubelet has sufficient memory available",
		},
		{Type: "DiskPressure", Status: condition.False, Reason: "KubeletHasNoDiskPressure", Message: "kubelet has no disk pressure"},
		{Type: "PIDPressure", Status: condition.False, Reason: "KubeletHasSufficientPID", Message: "kubelet has sufficient PID available"},
	} {
		registration.SetCondition(st, c, now)
	}
	return st
}

// settled reports whether a pod requires no action.
func settled(pod *corev1.Pod) bool {
	if pod.GetMetadata().GetDeletionTimestamp() != nil {
		return false
	}
	return pod.GetStatus().GetPhase() != "" && pod.GetStatus().GetPhase() != core.PodPending
}

// settle makes a pod run, or end when it is one that ends, or go when it is being deleted.
func (n *node) settle(ctx context.Context, pod *corev1.Pod) error {
	m := pod.GetMetadata()
	if m.GetDeletionTimestamp() != nil {
		_, err := client.Delete[*corev1.Pod](ctx, n.client, m.GetNamespace(), m.GetName(), client.GracePeriod(0), client.IfUID(m.GetUid()))
		if apierr.IsNotFound(err) || apierr.IsConflict(err) {
			return nil
		}
		return err
	}
	addresses, err := n.podAddresses(pod)
	if err != nil {
		return err
	}
	pod = client.Clone(pod)
	pod.Status = runningStatus(pod, addresses, n.address, time.Now())
	if policy := pod.GetSpec().GetRestartPolicy(); policy == core.RestartNever || policy == core.RestartOnFailure {
		succeed(pod.GetStatus())
	}
	_, err = client.UpdateStatus(ctx, n.client, pod)
	if apierr.IsNotFound(err) || apierr.IsConflict(err) {
		// It changed or went; the watch brings what it is now.
		return nil
	}
	return err
}

// succeed makes of a pod that runs one whose containers have ended without error, in the second in
// which they started.
func succeed(st *corev1.PodStatus) {
	st.Phase = core.PodSucceeded
	for _, c := range st.GetConditions() {
		switch c.GetType() {
		case core.PodReady, core.PodContainersReady:
			c.Status, c.Reason = condition.False, "PodCompleted"
		case core.PodInitialized:
			c.Reason = "PodCompleted"
		}
	}
	for _, c := range st.GetContainerStatuses() {
		at := c.GetState().GetRunning().GetStartedAt()
		c.Ready, c.Started = false, proto.Bool(false)
		c.State = &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "Completed", StartedAt: at, FinishedAt: at, ContainerId: c.GetContainerId(),
		}}
	}
}

func runningStatus(pod *corev1.Pod, own []netip.Addr, host netip.Addr, at time.Time) *corev1.PodStatus {
	now := timestamppb.New(at.Truncate(time.Second))
	st := &corev1.PodStatus{
		Phase: core.PodRunning, StartTime: now, QosClass: core.PodQOS(pod.GetSpec()), HostIp: host.String(), PodIp: own[0].String(),
		HostIps: []*corev1.HostIP{{Ip: host.String()}}, ObservedGeneration: pod.GetMetadata().GetGeneration(),
	}
	for _, addr := range own {
		st.PodIps = append(st.PodIps, &corev1.PodIP{Ip: addr.String()})
	}
	for _, name := range []string{"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"} {
		st.Conditions = append(st.Conditions, &corev1.PodCondition{Type: name, Status: condition.True, LastTransitionTime: now})
	}
	for _, c := range pod.GetSpec().GetContainers() {
		st.ContainerStatuses = append(st.ContainerStatuses, &corev1.ContainerStatus{
			Name: c.GetName(), Image: c.GetImage(), Ready: true, Started: proto.Bool(true),
			ContainerId: "hollow://" + pod.GetMetadata().GetUid() + "-" + c.GetName(),
			State:       &corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return st
}
