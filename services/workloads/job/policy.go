package job

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// verdict is what the podFailurePolicy of a Job says of a failed pod.
type verdict struct {
	// action is that of the rule that matches, empty when none does.
	action string
	// message says why the Job fails, for ActionFailJob.
	message string
}

// counts reports whether the failure counts against backoffLimit and backoffLimitPerIndex.
func (v verdict) counts() bool { return v.action != batch.ActionIgnore }

// judge returns what the first rule that matches a failed pod says. Rules with actions that are not
// known are skipped.
func judge(policy *batchv1.PodFailurePolicy, p *corev1.Pod) verdict {
	for i, rule := range policy.GetRules() {
		why := ""
		if r := rule.GetOnExitCodes(); r != nil {
			why = matchExitCodes(p, r)
		} else {
			why = matchConditions(p, rule.GetOnPodConditions())
		}
		if why == "" {
			continue
		}
		switch rule.GetAction() {
		case batch.ActionIgnore, batch.ActionCount, batch.ActionFailIndex:
			return verdict{action: rule.GetAction()}
		case batch.ActionFailJob:
			return verdict{rule.GetAction(), fmt.Sprintf("%s matching %s rule at index %d", why, rule.GetAction(), i)}
		}
	}
	return verdict{}
}

// matchExitCodes describes the container of a pod that failed with an exit code as required; empty
// for none.
func matchExitCodes(p *corev1.Pod, r *batchv1.PodFailurePolicyOnExitCodesRequirement) string {
	m := p.GetMetadata()
	for _, list := range [][]*corev1.ContainerStatus{p.GetStatus().GetContainerStatuses(), p.GetStatus().GetInitContainerStatuses()} {
		for _, s := range list {
			code := s.GetState().GetTerminated().GetExitCode()
			if code == 0 || r.ContainerName != nil && r.GetContainerName() != s.GetName() {
				continue
			}
			listed := slices.Contains(r.GetValues(), code)
			if r.GetOperator() == batch.OperatorIn && listed || r.GetOperator() == batch.OperatorNotIn && !listed {
				return fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d", s.GetName(), m.GetNamespace(), m.GetName(), code)
			}
		}
	}
	return ""
}

// matchConditions describes the condition of a pod that matches a pattern; empty for none.
func matchConditions(p *corev1.Pod, patterns []*batchv1.PodFailurePolicyOnPodConditionsPattern) string {
	for _, c := range p.GetStatus().GetConditions() {
		for _, pattern := range patterns {
			if c.GetType() == pattern.GetType() && c.GetStatus() == pattern.GetStatus() {
				return fmt.Sprintf("Pod %s/%s has condition %s", p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), c.GetType())
			}
		}
	}
	return ""
}

// failJobMessage says why a failed pod makes the whole Job fail; empty when none does.
func failJobMessage(j *batchv1.Job, pods []*corev1.Pod) string {
	if j.GetSpec().GetPodFailurePolicy() == nil {
		return ""
	}
	for _, p := range pods {
		if !isFailed(j.GetSpec(), p) {
			continue
		}
		if v := judge(j.GetSpec().GetPodFailurePolicy(), p); v.message != "" {
			return v.message
		}
	}
	return ""
}

// failsIndex reports whether a pod makes its index fail: by the policy, or as one failure too many.
func failsIndex(j *batchv1.Job, p *corev1.Pod) bool {
	s := j.GetSpec()
	if !isFailed(s, p) {
		return false
	}
	v := judge(s.GetPodFailurePolicy(), p)
	return v.action == batch.ActionFailIndex || v.counts() && failuresBefore(p) >= int(s.GetBackoffLimitPerIndex())
}

// failuresBefore is how many pods of the index failed before a pod and count against
// backoffLimitPerIndex.
func failuresBefore(p *corev1.Pod) int { return annotatedCount(p, batch.AnnotationFailureCount) }

// allFailuresBefore is failuresBefore with the failures that do not count.
func allFailuresBefore(p *corev1.Pod) int {
	return failuresBefore(p) + annotatedCount(p, batch.AnnotationIgnoredFailureCount)
}

func annotatedCount(p *corev1.Pod, key string) int {
	n, err := strconv.Atoi(p.GetMetadata().GetAnnotations()[key])
	if err != nil || n < 0 || n > math.MaxInt32 {
		return 0
	}
	return n
}

// failuresAfter returns how many pods of an index failed when the pod that replaces a failed one is
// created. There is no failed one, nil, for the first pod of an index.
func failuresAfter(j *batchv1.Job, failed *corev1.Pod) (counted, ignored int) {
	if failed == nil {
		return 0, 0
	}
	counted, ignored = failuresBefore(failed), annotatedCount(failed, batch.AnnotationIgnoredFailureCount)
	if judge(j.GetSpec().GetPodFailurePolicy(), failed).counts() {
		return counted + 1, ignored
	}
	return counted, ignored + 1
}

// matchSuccessPolicy says which rule makes an Indexed Job succeed with the indexes that have; empty
// for none.
func matchSuccessPolicy(j *batchv1.Job, succeeded batch.Indexes) string {
	if len(succeeded) == 0 {
		return ""
	}
	for i, rule := range j.GetSpec().GetSuccessPolicy().GetRules() {
		met := false
		if rule.SucceededIndexes != nil {
			required := batch.ReadIndexes(rule.GetSucceededIndexes(), int(j.GetSpec().GetCompletions()))
			common := required.Common(succeeded)
			met = len(required) > 0 && (common == required.Len() || rule.SucceededCount != nil && common >= int(rule.GetSucceededCount()))
		} else {
			met = rule.SucceededCount != nil && succeeded.Len() >= int(rule.GetSucceededCount())
		}
		if met {
			return fmt.Sprintf("Matched rules at index %d", i)
		}
	}
	return ""
}
