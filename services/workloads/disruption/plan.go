package disruption

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/policy"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// deletionTimeout is how long an evicted pod that is not being deleted counts as unhealthy, as in
// Kubernetes. Evictions here mark the pod in the transaction that changes the budget, so that only
// the informer of pods can be behind.
const deletionTimeout = 2 * time.Minute

// scale is the number of pods that a controller of pods wants.
type scale struct {
	uid      string
	replicas int32
}

// scaler finds the scale of the controller of a pod; nil when the controller does not exist.
type scaler func(namespace string, owner *metav1.OwnerReference) (*scale, error)

// counts is what a budget demands of its pods.
type counts struct {
	expected, desired int32
	// unmanaged says that some pods have no controller, and so are not in expected.
	unmanaged bool
}

// countsOf returns what a budget demands of the pods that it selects. The error says why that is
// not known.
func countsOf(spec *policyv1.PodDisruptionBudgetSpec, pods []*corev1.Pod, scaleOf scaler) (counts, error) {
	limit := spec.GetMaxUnavailable()
	if limit == nil {
		limit = spec.GetMinAvailable()
		if limit == nil {
			return counts{}, nil
		}
		if n, percent, ok := object.PercentOrCount(limit); ok && !percent {
			return counts{expected: int32(len(pods)), desired: n}, nil
		}
	}
	c, err := sum(pods, scaleOf)
	if err != nil {
		return counts{}, err
	}
	n, err := object.ScaledValue(limit, c.expected, true)
	if err != nil {
		return counts{}, err
	}
	c.desired = n
	if spec.GetMaxUnavailable() != nil {
		c.desired = max(c.expected-n, 0)
	}
	return c, nil
}

// sum adds up the scales of the controllers of pods, each once.
func sum(pods []*corev1.Pod, scaleOf scaler) (c counts, err error) {
	scales, asked := map[string]int32{}, map[string]bool{}
	for _, p := range pods {
		owner := kinds.ControllerOf(p)
		if owner == nil {
			c.unmanaged = true
			continue
		}
		if asked[owner.GetUid()] {
			continue
		}
		asked[owner.GetUid()] = true
		s, err := scaleOf(p.GetMetadata().GetNamespace(), owner)
		if err == nil && s == nil {
			err = fmt.Errorf("found no controllers for pod %q", p.GetMetadata().GetName())
		}
		if err != nil {
			return counts{}, err
		}
		scales[s.uid] = s.replicas
	}
	for _, n := range scales {
		c.expected += n
	}
	return c, nil
}

// plan is the status that a budget should have.
type plan struct {
	status *policyv1.PodDisruptionBudgetStatus
	// notDeleted are pods whose eviction was not followed by a deletion in time.
	notDeleted []*corev1.Pod
	// recheck is when the next evicted pod counts again, 0 for never.
	recheck time.Duration
}

// planFor computes the status of a budget from the pods that it selects and what it demands.
func planFor(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, c counts, now time.Time) plan {
	before := b.GetStatus()
	p := plan{status: &policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: b.GetMetadata().GetGeneration(), ExpectedPods: c.expected, DesiredHealthy: c.desired,
		Conditions: slices.Clone(before.GetConditions()),
	}}
	for _, pod := range pods {
		if pod.GetMetadata().GetDeletionTimestamp() != nil {
			continue
		}
		name := pod.GetMetadata().GetName()
		if at, evicted := before.GetDisruptedPods()[name]; evicted && !createdAfter(pod, at.AsTime()) {
			left := at.AsTime().Add(deletionTimeout).Sub(now)
			if left > 0 {
				if p.status.DisruptedPods == nil {
					p.status.DisruptedPods = map[string]*timestamppb.Timestamp{}
				}
				p.status.DisruptedPods[name] = at
				if p.recheck == 0 || left < p.recheck {
					p.recheck = left
				}
				continue
			}
			p.notDeleted = append(p.notDeleted, pod)
		}
		if core.IsPodReady(pod) {
			p.status.CurrentHealthy++
		}
	}
	// A budget without pods allows nothing: its first pods may come before its next status.
	if c.expected > 0 {
		p.status.DisruptionsAllowed = max(p.status.GetCurrentHealthy()-c.desired, 0)
	}
	policy.SetDisruptionAllowed(p.status, now)
	return p
}

// createdAfter reports whether a pod is a later one of the name of a pod that was evicted. Both
// times are of whole seconds: a pod of the same second may be the evicted one.
func createdAfter(p *corev1.Pod, eviction time.Time) bool {
	return p.GetMetadata().GetCreationTimestamp().AsTime().After(eviction)
}

// failed is the status of a budget whose demands are not known: it allows no eviction.
func failed(b *policyv1.PodDisruptionBudget, why error, now time.Time) *policyv1.PodDisruptionBudgetStatus {
	status := cloneStatus(b)
	status.DisruptionsAllowed = 0
	policy.SetCondition(status, "False", policy.SyncFailed, why.Error(), now)
	return status
}
