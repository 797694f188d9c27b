package job

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// count counts the pods that have ended and releases them, up to maxReleases, and ends the Job when
// none is left.
func (p *planner) count() {
	s, status, uncounted := p.job.GetSpec(), p.plan.status, p.uncounted()
	counters := status.GetUncountedTerminatedPods()
	status.Succeeded += int32(len(counters.GetSucceeded()))
	status.Failed += int32(len(counters.GetFailed()))
	status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	completions := int(s.GetCompletions())
	completed := batch.ReadIndexes(status.GetCompletedIndexes(), completions)
	var fresh []*corev1.Pod
	rest := false
	for _, pod := range p.pods {
		if !isTracked(pod) || !p.releases(pod) {
			continue
		}
		if rest = len(p.plan.release) == maxReleases; rest {
			break
		}
		p.plan.release = append(p.plan.release, pod)
		if uncounted[pod.GetMetadata().GetUid()] || isIndexed(p.job) && !hasValidIndex(p.job, pod) {
			continue
		}
		switch {
		case isSucceeded(pod) && isIndexed(p.job):
			fresh = append(fresh, pod)
		case isSucceeded(pod):
			status.Succeeded++
		case (isFailed(s, pod) || p.finish.GetType() == batch.JobFailureTarget) && judge(s.GetPodFailurePolicy(), pod).counts():
			status.Failed++
		}
	}
	if isIndexed(p.job) {
		completed = completed.Union(indexesOf(fresh))
		status.Succeeded, status.CompletedIndexes = int32(completed.Len()), completed.String()
		status.FailedIndexes = nil
		if s.BackoffLimitPerIndex != nil {
			status.FailedIndexes = proto.String(p.failedIndexes.String())
		}
	}
	if p.finish != nil && !rest && status.GetActive() == 0 && status.GetTerminating() == 0 && len(p.plan.end) == 0 {
		p.close()
	}
}

// releases reports whether a pod loses its finalizer: it has ended, or the Job does.
func (p *planner) releases(pod *corev1.Pod) bool {
	if p.job.GetMetadata().GetDeletionTimestamp() != nil || p.finish != nil || isSucceeded(pod) {
		return true
	}
	return isFailed(p.job.GetSpec(), pod) && p.delayed[indexOf(pod)] != pod
}

// close adds the condition with which the Job has ended.
func (p *planner) close() {
	status := p.plan.status
	if p.finish.GetType() == batch.JobFailureTarget {
		p.setCondition(batch.JobFailed, condition.True, p.finish.GetReason(), p.finish.GetMessage())
		p.record(events.Warning, p.finish.GetReason(), p.finish.GetMessage())
		return
	}
	p.setCondition(batch.JobComplete, condition.True, p.finish.GetReason(), p.finish.GetMessage())
	status.CompletionTime = timestamppb.New(p.now)
	if status.StartTime != nil && status.StartTime.AsTime().After(p.now) {
		status.CompletionTime = status.StartTime // The clock went back.
	}
	if s := p.job.GetSpec(); s.Completions != nil && status.GetSucceeded() > s.GetCompletions() {
		p.record(events.Warning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached")
	}
	p.record(events.Normal, "Completed", "Job completed")
}
