package hollow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/version"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// statusEvery is about how often a node looks at its object, heartbeatEvery how often it writes its
// status all the same: as a real agent does.
const (
	statusEvery    = time.Minute
	heartbeatEvery = 5 * time.Minute
)

// register keeps the node's object until ctx ends.
func (n *node) register(ctx context.Context) error {
	pace := backoff.Backoff{Min: retryMin, Max: retryMax}
	var written time.Time
	for {
		err := pace.Retry(ctx, func(ctx context.Context) error {
			wrote, err := n.sync(ctx, time.Since(written) > heartbeatEvery)
			if wrote {
				written = time.Now()
			}
			return err
		}, func(err error, pause time.Duration) {
			n.log.Warn("Failed to update the node's object", zap.Error(err), zap.Duration(metrics.KeyRetryIn, pause))
		})
		if err != nil {
			return err
		}
		timer := time.NewTimer(statusEvery*9/10 + rand.N(statusEvery/5))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-n.wake:
		}
		timer.Stop()
	}
}

// sync creates the object, with its status, when there is none, and brings its status up to date.
func (n *node) sync(ctx context.Context, heartbeat bool) (wrote bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	object, err := client.Get[*corev1.Node](ctx, n.client, "", n.name)
	if apierr.IsNotFound(err) {
		_, err = client.Create(ctx, n.client, &corev1.Node{
			Metadata: &metav1.ObjectMeta{
				Name:   n.name,
				Labels: map[string]string{"kubernetes.io/hostname": n.name, "kubernetes.io/os": "linux", kind.LabelHollow: "true"},
			},
			Spec: &corev1.NodeSpec{}, Status: n.status(nil, time.Now()),
		})
		if err == nil {
			return true, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("register the node: %w", err)
	}
	if !heartbeat && kind.NodeCondition(object, kind.NodeReady).GetStatus() == kind.ConditionTrue {
		return false, nil
	}
	object.Status = n.status(object.GetStatus(), time.Now())
	_, err = client.UpdateStatus(ctx, n.client, object)
	if apierr.IsConflict(err) {
		n.nudge()
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("update the node's status: %w", err)
	}
	return true, nil
}

func (n *node) status(old *corev1.NodeStatus, at time.Time) *corev1.NodeStatus {
	now := timestamppb.New(at.Truncate(time.Second))
	room := map[string]*metav1.Quantity{
		"cpu": {String_: "64"}, "memory": {String_: "256Gi"}, "ephemeral-storage": {String_: "1Ti"}, "pods": {String_: fmt.Sprint(n.cfg.MaxPods)},
	}
	st := &corev1.NodeStatus{
		Capacity: room, Allocatable: room,
		Addresses: []*corev1.NodeAddress{{Type: kind.NodeInternalIP, Address: n.address.String()}, {Type: "Hostname", Address: n.name}},
		NodeInfo: &corev1.NodeSystemInfo{
			KubeletVersion:          version.Version(),
			OperatingSystem:         "linux",
			OsImage:                 "hollow",
			ContainerRuntimeVersion: "hollow://0",
		},
	}
	for _, c := range []*corev1.NodeCondition{
		{Type: kind.NodeReady, Status: kind.ConditionTrue, Reason: "AgentReady"},
		{Type: "MemoryPressure", Status: "False", Reason: "KubeletHasSufficientMemory", Message: "kubelet has sufficient memory available"},
		{Type: "DiskPressure", Status: "False", Reason: "KubeletHasNoDiskPressure", Message: "kubelet has no disk pressure"},
		{Type: "PIDPressure", Status: "False", Reason: "KubeletHasSufficientPID", Message: "kubelet has sufficient PID available"},
	} {
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		if before := kind.NodeCondition(&corev1.Node{Status: old}, c.Type); before.GetStatus() == c.Status &&
			before.GetLastTransitionTime() != nil {
			c.LastTransitionTime = before.GetLastTransitionTime()
		}
		st.Conditions = append(st.Conditions, c)
	}
	return st
}

// settled reports whether a pod requires no action.
func settled(pod *corev1.Pod) bool {
	if pod.GetMetadata().GetDeletionTimestamp() != nil {
		return false
	}
	return pod.GetStatus().GetPhase() != "" && pod.GetStatus().GetPhase() != kind.PodPending
}

// settle makes a pod run, or go when it is being deleted.
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
	_, err = client.UpdateStatus(ctx, n.client, pod)
	if apierr.IsNotFound(err) || apierr.IsConflict(err) {
		// It changed or went; the watch brings what it is now.
		return nil
	}
	return err
}

func runningStatus(pod *corev1.Pod, own []netip.Addr, host netip.Addr, at time.Time) *corev1.PodStatus {
	now := timestamppb.New(at.Truncate(time.Second))
	st := &corev1.PodStatus{
		Phase: kind.PodRunning, StartTime: now, QosClass: kind.PodQOS(pod.GetSpec()), HostIp: host.String(), PodIp: own[0].String(),
		HostIps: []*corev1.HostIP{{Ip: host.String()}}, ObservedGeneration: pod.GetMetadata().GetGeneration(),
	}
	for _, addr := range own {
		st.PodIps = append(st.PodIps, &corev1.PodIP{Ip: addr.String()})
	}
	for _, name := range []string{"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"} {
		st.Conditions = append(st.Conditions, &corev1.PodCondition{Type: name, Status: "True", LastTransitionTime: now})
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
