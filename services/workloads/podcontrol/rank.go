package podcontrol

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// DeletionCost is the annotation that says which pods are deleted first: those of the lowest cost.
const DeletionCost = "controller.kubernetes.io/pod-deletion-cost"

// IsActive reports whether a pod counts as a replica: it has not ended and is not being deleted.
func IsActive(p *corev1.Pod) bool {
	return !core.IsPodFinished(p) && p.GetMetadata().GetDeletionTimestamp() == nil
}

// Active returns the pods that are active.
func Active(pods []*corev1.Pod) []*corev1.Pod {
	var active []*corev1.Pod
	for _, p := range pods {
		if IsActive(p) {
			active = append(active, p)
		}
	}
	return active
}

// AvailableIn returns how long it takes until a pod counts as available, 0 or less for now, and
// false when the pod is not ready.
func AvailableIn(p *corev1.Pod, minReadySeconds int32, now time.Time) (time.Duration, bool) {
	if !core.IsPodReady(p) {
		return 0, false
	}
	if minReadySeconds == 0 {
		return 0, true // The clock of the pod's node may be ahead of this one.
	}
	return readySince(p).Add(time.Duration(minReadySeconds) * time.Second).Sub(now), true
}

// Surplus returns the n of the pods to delete, in Kubernetes' order: those without a node, then
// pending, then not ready, then of low deletion cost, then on nodes with more related pods
// according to onNode, then ready for the shorter time, then restarted more often, then younger.
func Surplus(pods []*corev1.Pod, n int, onNode map[string]int) []*corev1.Pod {
	phases := map[string]int{core.PodPending: 0, core.PodUnknown: 1, core.PodRunning: 2}
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int {
		return cmp.Or(
			compareBool(a.GetSpec().GetNodeName() != "", b.GetSpec().GetNodeName() != ""),
			cmp.Compare(phases[a.GetStatus().GetPhase()], phases[b.GetStatus().GetPhase()]),
			compareBool(core.IsPodReady(a), core.IsPodReady(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(onNode[b.GetSpec().GetNodeName()], onNode[a.GetSpec().GetNodeName()]),
			readySince(b).Compare(readySince(a)),
			cmp.Compare(restarts(b), restarts(a)),
			b.GetMetadata().GetCreationTimestamp().AsTime().Compare(a.GetMetadata().GetCreationTimestamp().AsTime()),
		)
	})
	return sorted[:n]
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func deletionCost(p *corev1.Pod) int {
	n, _ := strconv.Atoi(p.GetMetadata().GetAnnotations()[DeletionCost])
	return n
}

func restarts(p *corev1.Pod) (n int32) {
	for _, c := range p.GetStatus().GetContainerStatuses() {
		n = max(n, c.GetRestartCount())
	}
	return n
}

// readySince is when the pod became ready, the zero time when it is not.
func readySince(p *corev1.Pod) time.Time {
	if !core.IsPodReady(p) {
		return time.Time{}
	}
	return core.PodCondition(p, core.PodReady).GetLastTransitionTime().AsTime()
}
