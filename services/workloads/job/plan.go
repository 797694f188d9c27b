package job

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	"github.com/xebec-project/xebec/internal/kinds/core"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

const (
	// maxChanges is the most pods that one plan creates or removes.
	maxChanges = 500
	// maxReleases is the most pods that one plan counts.
	maxReleases = 250
)

// Reasons and messages of conditions.
const (
	reasonPodFailurePolicy         = "PodFailurePolicy"
	reasonBackoffLimitExceeded     = "BackoffLimitExceeded"
	reasonDeadlineExceeded         = "DeadlineExceeded"
	reasonMaxFailedIndexesExceeded = "MaxFailedIndexesExceeded"
	reasonFailedIndexes            = "FailedIndexes"
	reasonSuccessPolicy            = "SuccessPolicy"
	reasonCompletionsReached       = "CompletionsReached"
)

// plan is what a reconcile of a Job does, in this order: pods are created or removed, the status is
// written and the counted pods are released in one transaction, and, when the Job ends, the
// remaining pods are deleted.
type plan struct {
	// create has the pods to create. No pods are removed then, and the Job does not end.
	create []newPod
	// remove has pods that are not needed any more: they lose their finalizer uncounted, and are
	// deleted.
	remove []*corev1.Pod
	// status is the new status. Active, Ready and Terminating are as if all changes succeeded.
	status *batchv1.JobStatus
	// release has the pods that lose their finalizer with the write of the status, which counts
	// those that have ended.
	release []*corev1.Pod
	// end has the active pods of a Job that ends.
	end []*corev1.Pod
	// events are recorded when the status is written.
	events []event
	// again is when the Job has to be looked at again, though nothing changes; 0 for never.
	again time.Duration
}

type event struct{ typ, reason, message string }

// planner makes the plan of one Job. It reads, and changes nothing but the plan.
type planner struct {
	job  *batchv1.Job
	pods []*corev1.Pod
	now  time.Time
	plan *plan

	// active are the pods that run or will.
	active []*corev1.Pod
	// succeeded and failed are what the counters are once all pods that have ended are counted.
	succeeded, failed int
	// completed are the indexes that have succeeded, failedIndexes those that failed.
	completed, failedIndexes batch.Indexes
	// delayed has, for each index, the failed pod that keeps its finalizer until it is replaced:
	// the replacement is annotated with its failures.
	delayed map[int]*corev1.Pod
	// finish is FailureTarget or SuccessCriteriaMet once the Job ends.
	finish *batchv1.JobCondition
}

// newPlan returns what a reconcile of a Job that has not ended does, given all its pods.
func newPlan(j *batchv1.Job, pods []*corev1.Pod, now time.Time) *plan {
	p := &planner{
		job: j, pods: append([]*corev1.Pod{}, pods...), now: now.Truncate(time.Second),
		active: podcontrol.Active(pods), plan: &plan{status: &batchv1.JobStatus{}},
	}
	if j.Status != nil {
		p.plan.status = proto.CloneOf(j.Status)
	}
	byIndex(p.pods)
	if p.plan.status.StartTime == nil && !j.GetSpec().GetSuspend() {
		p.plan.status.StartTime = timestamppb.New(p.now)
	}
	p.assess()
	p.decide(now)
	if p.finish == nil && j.GetMetadata().GetDeletionTimestamp() == nil {
		p.manage(now)
	}
	p.settle()
	p.count()
	return p.plan
}

// assess computes what the counters will be.
func (p *planner) assess() {
	s, status, uncounted := p.job.GetSpec(), p.job.GetStatus(), p.uncounted()
	p.succeeded = int(status.GetSucceeded()) + len(status.GetUncountedTerminatedPods().GetSucceeded())
	p.failed = int(status.GetFailed()) + len(status.GetUncountedTerminatedPods().GetFailed())
	var completed, failed []*corev1.Pod
	for _, pod := range p.pods {
		if !isTracked(pod) || isIndexed(p.job) && !hasValidIndex(p.job, pod) {
			continue
		}
		if isSucceeded(pod) {
			completed = append(completed, pod)
		}
		if s.BackoffLimitPerIndex != nil && failsIndex(p.job, pod) {
			failed = append(failed, pod)
		}
		switch {
		case uncounted[pod.GetMetadata().GetUid()]:
		case isSucceeded(pod):
			p.succeeded++
		case isFailed(s, pod) && judge(s.GetPodFailurePolicy(), pod).counts():
			p.failed++
		}
	}
	if !isIndexed(p.job) {
		return
	}
	completions := int(s.GetCompletions())
	p.completed = batch.ReadIndexes(status.GetCompletedIndexes(), completions).Union(indexesOf(completed))
	p.succeeded = p.completed.Len()
	if s.BackoffLimitPerIndex != nil {
		p.failedIndexes = batch.ReadIndexes(status.GetFailedIndexes(), completions).Union(indexesOf(failed))
		p.delay()
	}
}

// uncounted are the uids of pods that are counted already, but for the number.
func (p *planner) uncounted() map[string]bool {
	uids, u := map[string]bool{}, p.job.GetStatus().GetUncountedTerminatedPods()
	for _, list := range [][]string{u.GetSucceeded(), u.GetFailed()} {
		for _, uid := range list {
			uids[uid] = true
		}
	}
	return uids
}

// delay finds the failed pod of each index that will be replaced: the one with the most failures
// before it, and of those the one that ended last.
func (p *planner) delay() {
	p.delayed = map[int]*corev1.Pod{}
	active := indexesOf(p.active)
	for _, pod := range p.pods {
		i := indexOf(pod)
		if !isTracked(pod) || !hasValidIndex(p.job, pod) || !isFailed(p.job.GetSpec(), pod) ||
			p.completed.Has(i) || p.failedIndexes.Has(i) || active.Has(i) {
			continue
		}
		last := p.delayed[i]
		if last == nil || allFailuresBefore(last) <= allFailuresBefore(pod) && !endOf(pod).Before(endOf(last)) {
			p.delayed[i] = pod
		}
	}
}

// decide determines whether the Job ends, by what was decided before, a failure or a success
// policy.
func (p *planner) decide(now time.Time) {
	s := p.job.GetSpec()
	if p.finish = p.standing(); p.finish != nil {
		return
	}
	if message := failJobMessage(p.job, p.pods); message != "" {
		p.fail(reasonPodFailurePolicy, message)
		return
	}
	if p.failed > int(s.GetBackoffLimit()) || restartsExceed(s, p.pods) {
		p.fail(reasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
		return
	}
	if s.ActiveDeadlineSeconds != nil && !s.GetSuspend() {
		left := p.plan.status.StartTime.AsTime().Add(time.Duration(s.GetActiveDeadlineSeconds()) * time.Second).Sub(now)
		if left <= 0 {
			p.fail(reasonDeadlineExceeded, "Job was active longer than specified deadline")
			return
		}
		p.wait(left)
	}
	if s.BackoffLimitPerIndex != nil {
		failed := p.failedIndexes.Len()
		if s.MaxFailedIndexes != nil && failed > int(s.GetMaxFailedIndexes()) {
			p.fail(reasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
			return
		}
		if failed > 0 && failed+p.completed.Len() >= int(s.GetCompletions()) {
			p.fail(reasonFailedIndexes, "Job has failed indexes")
			return
		}
	}
	if message := matchSuccessPolicy(p.job, p.completed); message != "" {
		p.succeed(reasonSuccessPolicy, message)
	}
}

// standing is the condition with which it was decided that the Job ends.
func (p *planner) standing() *batchv1.JobCondition {
	for _, typ := range []string{batch.JobSuccessCriteriaMet, batch.JobFailureTarget} {
		if c := condition.Find(p.job.GetStatus().GetConditions(), typ); c.GetStatus() == condition.True {
			return c
		}
	}
	return nil
}

func (p *planner) fail(reason, message string) {
	p.finish = p.setCondition(batch.JobFailureTarget, condition.True, reason, message)
}

func (p *planner) succeed(reason, message string) {
	p.finish = p.setCondition(batch.JobSuccessCriteriaMet, condition.True, reason, message)
}

// setCondition sets a condition of the new status.
func (p *planner) setCondition(typ, status, reason, message string) *batchv1.JobCondition {
	c := condition.Find(p.plan.status.GetConditions(), typ)
	if c == nil {
		c = &batchv1.JobCondition{}
		p.plan.status.Conditions = append(p.plan.status.Conditions, c)
	}
	c.Type, c.Status, c.Reason, c.Message = typ, status, reason, message
	c.LastProbeTime, c.LastTransitionTime = timestamppb.New(p.now), timestamppb.New(p.now)
	return c
}

// wait makes the Job be looked at again after a time, unless it is sooner already.
func (p *planner) wait(d time.Duration) {
	if p.plan.again == 0 || d < p.plan.again {
		p.plan.again = d
	}
}

func (p *planner) record(typ, reason, message string) {
	p.plan.events = append(p.plan.events, event{typ, reason, message})
}

// restartsExceed reports whether the containers of a Job whose pods restart them have done so as
// often as backoffLimit allows.
func restartsExceed(s *batchv1.JobSpec, pods []*corev1.Pod) bool {
	if s.GetTemplate().GetSpec().GetRestartPolicy() != core.RestartOnFailure {
		return false
	}
	restarts := int32(0)
	for _, pod := range pods {
		if core.IsPodFinished(pod) {
			continue
		}
		for _, list := range [][]*corev1.ContainerStatus{pod.GetStatus().GetInitContainerStatuses(), pod.GetStatus().GetContainerStatuses()} {
			for _, c := range list {
				restarts += c.GetRestartCount()
			}
		}
	}
	return restarts > 0 && restarts >= s.GetBackoffLimit()
}

// settle sets the numbers of pods as they are after the changes, and whether the Job is suspended.
func (p *planner) settle() {
	status, leaving := p.plan.status, p.plan.remove
	if p.finish != nil {
		p.plan.end = p.active
		leaving = p.active
	}
	var ready, terminating int32
	for _, pod := range p.active {
		if core.IsPodReady(pod) {
			ready++
		}
	}
	for _, pod := range p.pods {
		if isTerminating(pod) {
			terminating++
		}
	}
	for _, pod := range leaving {
		if core.IsPodReady(pod) {
			ready--
		}
		if pod.GetSpec().GetNodeName() != "" {
			terminating++
		}
	}
	status.Active = int32(len(p.active) - len(leaving) + len(p.plan.create))
	status.Ready, status.Terminating = &ready, &terminating
}

// suspend sets the condition Suspended.
func (p *planner) suspend() {
	s, before := p.job.GetSpec(), condition.Find(p.job.GetStatus().GetConditions(), batch.JobSuspended)
	switch {
	case s.GetSuspend() && before.GetStatus() != condition.True:
		p.setCondition(batch.JobSuspended, condition.True, "JobSuspended", "Job suspended")
		p.plan.status.StartTime = nil
		p.record(events.Normal, "Suspended", "Job suspended")
	case !s.GetSuspend() && before != nil && before.GetStatus() != condition.False:
		p.setCondition(batch.JobSuspended, condition.False, "JobResumed", "Job resumed")
		// The deadline counts from here.
		p.plan.status.StartTime = timestamppb.New(p.now)
		p.record(events.Normal, "Resumed", "Job resumed")
	}
}
