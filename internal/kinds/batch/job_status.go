package batch

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
)

// checkJobStatus checks a new status. Controllers other than the built-in one write statuses too
// (managedBy), and clients rely on a Job that has ended to stay as it is. A rule is checked when
// one of the fields that it is about changes: a new spec may break it for a moment.
func checkJobStatus(new, old *batchv1.Job, c *rules.Checker) {
	if new.GetSpec() == nil {
		return // No stored Job is without one.
	}
	s := statusCheck{Checker: c, at: field.NewPath("status"), new: new, old: old}
	s.uncounted()
	s.conditions()
	s.times()
	s.ended()
	s.indexes()
	s.counters()
}

// status returns the status of a Job, empty for none.
func status(j *batchv1.Job) *batchv1.JobStatus {
	if j.GetStatus() == nil {
		return &batchv1.JobStatus{}
	}
	return j.Status
}

type statusCheck struct {
	*rules.Checker
	at       *field.Path
	new, old *batchv1.Job
}

// turned reports whether one of some conditions becomes true or stops to be.
func (s statusCheck) turned(types ...string) bool {
	for _, typ := range types {
		if HasCondition(s.new, typ) != HasCondition(s.old, typ) {
			return true
		}
	}
	return false
}

func (s statusCheck) condition(detail string) {
	s.Invalid(s.at.Child("conditions"), field.OmitValueType{}, detail)
}

func (s statusCheck) uncounted() {
	u, seen := s.new.GetStatus().GetUncountedTerminatedPods(), map[string]bool{}
	check := func(name string, uids []string) {
		for i, uid := range uids {
			p := s.at.Child("uncountedTerminatedPods", name).Index(i)
			switch {
			case uid == "":
				s.Invalid(p, uid, "must not be empty")
			case seen[uid]:
				s.Add(field.Duplicate(p, uid))
			}
			seen[uid] = true
		}
	}
	check("succeeded", u.GetSucceeded())
	check("failed", u.GetFailed())
}

func (s statusCheck) conditions() {
	complete, failed := HasCondition(s.new, JobComplete), HasCondition(s.new, JobFailed)
	target, met := HasCondition(s.new, JobFailureTarget), HasCondition(s.new, JobSuccessCriteriaMet)
	if complete && failed && s.turned(JobComplete, JobFailed) {
		s.condition("cannot set Complete=True and Failed=true conditions")
	}
	if complete && target && s.turned(JobComplete, JobFailureTarget) {
		s.condition("cannot set Complete=True and FailureTarget=true conditions")
	}
	failedIndexesChanged := !rules.Equal(status(s.new).FailedIndexes, status(s.old).FailedIndexes)
	if failed && !target && (s.turned(JobFailed) || failedIndexesChanged) {
		s.condition("cannot set Failed=True condition without the FailureTarget=true condition")
	}
	if complete && !met && s.turned(JobComplete, JobSuccessCriteriaMet) {
		s.condition("cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	}
	if met && failed {
		s.condition("cannot set SuccessCriteriaMet=True and Failed=true conditions")
	}
	if met && target {
		s.condition("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	}
	if s.new.GetSpec().GetSuccessPolicy() != nil && !met && complete {
		s.condition("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
	}
	for _, typ := range []string{JobFailed, JobComplete, JobFailureTarget} {
		if HasCondition(s.old, typ) && !HasCondition(s.new, typ) {
			s.condition(fmt.Sprintf("cannot disable the terminal %s=True condition", typ))
		}
	}
	if HasCondition(s.old, JobSuccessCriteriaMet) && !met {
		s.condition("cannot disable the SuccessCriteriaMet=True condition")
	}
	if HasCondition(s.old, JobComplete) && !HasCondition(s.old, JobSuccessCriteriaMet) && met {
		s.condition("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
	}
}

func (s statusCheck) times() {
	started, completed := s.at.Child("startTime"), s.at.Child("completionTime")
	start, end := s.new.GetStatus().GetStartTime(), s.new.GetStatus().GetCompletionTime()
	wasStart, wasEnd := s.old.GetStatus().GetStartTime(), s.old.GetStatus().GetCompletionTime()
	startChanged, endChanged := !proto.Equal(start, wasStart), !proto.Equal(end, wasEnd)
	complete := HasCondition(s.new, JobComplete)
	if s.turned(JobComplete) || endChanged {
		if end != nil && !complete {
			s.Invalid(completed, end.AsTime(), "cannot set completionTime when there is no Complete=True condition")
		}
		if end == nil && complete {
			s.Required(completed, "completionTime is required for Complete jobs")
		}
	}
	if (startChanged || endChanged) && start != nil && end != nil && end.AsTime().Before(start.AsTime()) {
		s.Invalid(completed, end.AsTime(), "must be equal to or after `startTime`")
	}
	if end != nil && wasEnd != nil && endChanged {
		s.Invalid(completed, end.AsTime(), rules.Immutable)
	}
	resumes := HasCondition(s.old, JobSuspended) && isFalse(s.new, JobSuspended)
	if startChanged && wasStart != nil && !resumes && !s.new.GetSpec().GetSuspend() {
		s.Invalid(started, start.AsTime(), "field is immutable for unsuspended job once set")
	}
}

// ended checks that a Job that has ended has no pods left.
func (s statusCheck) ended() {
	now, was := status(s.new), status(s.old)
	if Finished(s.new) == nil {
		return
	}
	ends := Finished(s.old) == nil
	if now.GetActive() > 0 && (ends || now.GetActive() != was.GetActive()) {
		s.Invalid(s.at.Child("active"), now.GetActive(), "active>0 is invalid for finished job")
	}
	spec := s.new.GetSpec()
	// A suspended Job without anything to do ends before it begins.
	nothing := spec.GetSuspend() && spec.Completions != nil && spec.GetCompletions() == 0
	if now.GetStartTime() == nil && !nothing && (ends || was.GetStartTime() != nil) {
		s.Required(s.at.Child("startTime"), "startTime is required for finished job")
	}
	u := now.GetUncountedTerminatedPods()
	if len(u.GetFailed())+len(u.GetSucceeded()) > 0 && (ends || !proto.Equal(u, was.GetUncountedTerminatedPods())) {
		s.Invalid(s.at.Child("uncountedTerminatedPods"), field.OmitValueType{}, "must be empty for finished job")
	}
	if now.GetTerminating() > 0 && (ends || now.GetTerminating() != was.GetTerminating()) {
		s.Invalid(s.at.Child("terminating"), now.GetTerminating(), "terminating>0 is invalid for finished job")
	}
}

func (s statusCheck) indexes() {
	spec, now, was := s.new.GetSpec(), status(s.new), status(s.old)
	completedChanged := now.GetCompletedIndexes() != was.GetCompletedIndexes()
	failedChanged := !rules.Equal(now.FailedIndexes, was.FailedIndexes)
	completed, failed := s.at.Child("completedIndexes"), s.at.Child("failedIndexes")
	completions := int(spec.GetCompletions())
	if completedChanged {
		if _, err := checkIndexes(now.GetCompletedIndexes(), completions); err != nil && spec.Completions != nil {
			s.Invalid(completed, now.GetCompletedIndexes(), "error parsing completedIndexes: "+err.Error())
		}
		if now.GetCompletedIndexes() != "" && spec.GetCompletionMode() != Indexed {
			s.Invalid(completed, now.GetCompletedIndexes(), "cannot set non-empty completedIndexes when non-indexed completion mode")
		}
	}
	if failedChanged && now.FailedIndexes != nil {
		_, err := checkIndexes(now.GetFailedIndexes(), completions)
		if err != nil && spec.Completions != nil && spec.BackoffLimitPerIndex != nil {
			s.Invalid(failed, now.GetFailedIndexes(), "error parsing failedIndexes: "+err.Error())
		}
		if spec.BackoffLimitPerIndex == nil {
			s.Invalid(failed, now.GetFailedIndexes(), "cannot set non-null failedIndexes when backoffLimitPerIndex is null")
		}
	}
	if (completedChanged || failedChanged) && spec.Completions != nil && now.FailedIndexes != nil {
		a, b := ReadIndexes(now.GetCompletedIndexes(), completions), ReadIndexes(now.GetFailedIndexes(), completions)
		if both, overlap := a.firstCommon(b); overlap {
			s.Invalid(failed, now.GetFailedIndexes(), fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", both))
		}
	}
}

func (s statusCheck) counters() {
	spec, now, was := s.new.GetSpec(), status(s.new), status(s.old)
	// An Indexed Job that is scaled down loses indexes that succeeded.
	elastic := spec.GetCompletionMode() == Indexed && rules.Equal(spec.Completions, spec.Parallelism)
	if now.GetSucceeded() < was.GetSucceeded() && !elastic {
		s.Invalid(s.at.Child("succeeded"), now.GetSucceeded(), "cannot decrease the succeeded counter")
	}
	if now.GetFailed() < was.GetFailed() {
		s.Invalid(s.at.Child("failed"), now.GetFailed(), "cannot decrease the failed counter")
	}
	changed := now.GetReady() != was.GetReady() || now.GetActive() != was.GetActive()
	if now.GetReady() > now.GetActive() && changed {
		s.Invalid(s.at.Child("ready"), now.GetReady(), "cannot set more ready pods than active")
	}
}

func isFalse(j *batchv1.Job, typ string) bool {
	for _, c := range j.GetStatus().GetConditions() {
		if c.GetType() == typ && c.GetStatus() == condition.False {
			return true
		}
	}
	return false
}
