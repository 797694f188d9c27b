package core

import (
	"time"

	"github.com/xebec-project/xebec/internal/condition"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Reasons of the condition DisruptionTarget.
const (
	// EvictionByEvictionAPI: someone evicted the pod.
	EvictionByEvictionAPI = "EvictionByEvictionAPI"
	// DeletionByTaintManager: its node has a NoExecute taint that the pod does not tolerate.
	DeletionByTaintManager = "DeletionByTaintManager"
	// DeletionByPodGC: its node does not exist any more.
	DeletionByPodGC = "DeletionByPodGC"
	// TerminationByKubelet: the agent ended the pod, because the node is short of a resource.
	TerminationByKubelet = "TerminationByKubelet"
)

// SetDisruptionTarget gives a pod that the cluster is about to remove the condition
// DisruptionTarget, with the reason and the sentence that say why. It returns false when the pod
// has that condition already.
func SetDisruptionTarget(p *corev1.Pod, reason, message string, now time.Time) bool {
	if p.Status == nil {
		p.Status = &corev1.PodStatus{}
	}
	before := p.Status.GetConditions()
	set := &corev1.PodCondition{
		Type: PodDisruptionTarget, Status: condition.True, Reason: reason, Message: message,
		LastTransitionTime: condition.Since(before, PodDisruptionTarget, condition.True, now),
	}
	// Only agents that report generations make those of conditions comparable.
	if p.Status.GetObservedGeneration() != 0 {
		set.ObservedGeneration = p.GetMetadata().GetGeneration()
	}
	for i, c := range before {
		if c.GetType() == PodDisruptionTarget {
			p.Status.Conditions[i] = set
			return c.GetStatus() != set.GetStatus() || c.GetReason() != reason || c.GetMessage() != message
		}
	}
	p.Status.Conditions = append(before, set)
	return true
}
