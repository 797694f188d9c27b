package registry

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/policy"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// maxDisrupted is how many evictions of a budget may await its controller, as in Kubernetes.
const maxDisrupted = 2000

// retryOutdated is when an eviction should be tried again while the status of the budget is out of
// date.
const retryOutdated = 10 * time.Second

// NeedsBudget reports whether the eviction of a pod is up to its disruption budget: not when it has
// ended, is pending or is being deleted already.
func NeedsBudget(pod *corev1.Pod) bool {
	return !core.IsPodFinished(pod) && pod.GetStatus().GetPhase() != core.PodPending && pod.GetMetadata().GetDeletionTimestamp() == nil
}

// MarkEvicted gives a pod that is evicted the condition that says so.
func MarkEvicted(pod *corev1.Pod, now time.Time) {
	core.SetDisruptionTarget(pod, core.EvictionByEvictionAPI, "Eviction API: evicting", now)
}

// Disrupt takes the disruption by the eviction of a pod from a budget. It returns false, and
// changes nothing, when the pod is not ready and may be evicted as one that does not count. The
// error, one of the API, refuses the eviction.
func Disrupt(b *policyv1.PodDisruptionBudget, pod *corev1.Pod, now time.Time) (disrupted bool, err error) {
	name, status := b.GetMetadata().GetName(), b.GetStatus()
	if !core.IsPodReady(pod) {
		healthy := status.GetCurrentHealthy() >= status.GetDesiredHealthy() && status.GetDesiredHealthy() > 0
		if healthy || b.GetSpec().GetUnhealthyPodEvictionPolicy() == policy.AlwaysAllow {
			return false, nil
		}
	}
	switch {
	case status.GetObservedGeneration() < b.GetMetadata().GetGeneration():
		return false, apierr.TooManyDisruptions(name, retryOutdated,
			fmt.Sprintf("The disruption budget %s is still being processed by the server.", name))
	case status.GetDisruptionsAllowed() < 0:
		return false, apierr.Forbidden(kinds.Of(b), name, "pdb disruptions allowed is negative")
	case len(status.GetDisruptedPods()) > maxDisrupted:
		return false, apierr.Forbidden(kinds.Of(b), name,
			"DisruptedPods map too big - too many evictions not confirmed by PDB controller")
	case status.GetDisruptionsAllowed() == 0:
		return false, apierr.TooManyDisruptions(name, 0, whyNone(b))
	}
	if status.DisruptedPods == nil {
		status.DisruptedPods = map[string]*timestamppb.Timestamp{}
	}
	// The controller does not count the pod as healthy from now on, although it may not see the
	// deletion yet.
	status.DisruptedPods[pod.GetMetadata().GetName()] = timestamppb.New(now.Truncate(time.Second))
	status.DisruptionsAllowed--
	if status.GetDisruptionsAllowed() == 0 {
		policy.SetDisruptionAllowed(status, now)
	}
	return true, nil
}

// whyNone says why a budget allows no disruption.
func whyNone(b *policyv1.PodDisruptionBudget) string {
	name, status := b.GetMetadata().GetName(), b.GetStatus()
	c := condition.Find(status.GetConditions(), policy.DisruptionAllowed)
	explained := c.GetStatus() == condition.False && c.GetMessage() != ""
	switch {
	case explained && c.GetReason() == policy.SyncFailed:
		// The counts are not to be trusted.
		return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %s", name, c.GetMessage())
	case status.GetCurrentHealthy() <= status.GetDesiredHealthy():
		return fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently",
			name, status.GetDesiredHealthy(), status.GetCurrentHealthy())
	case explained:
		return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently (%s): %s", name, c.GetReason(), c.GetMessage())
	}
	return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently", name)
}
