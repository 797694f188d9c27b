package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
)

// jobUID is the uid of all Jobs; the server has set one before it validates.
const jobUID = "9f2b4d5c-0000-4000-8000-000000000001"

func createJob(o *batch.Job) field.ErrorList {
	o.UID = jobUID
	generateSelector(o)
	o.Status = batch.JobStatus{}
	podutil.DropDisabledTemplateFields(&o.Spec.Template, nil)
	return batchvalidation.ValidateJob(o, jobOptions(o, nil))
}

// generateSelector does what the strategy of jobs does with the selector of a new one.
func generateSelector(o *batch.Job) {
	if *o.Spec.ManualSelector {
		return
	}
	set := func(m *map[string]string, key, value string) {
		if *m == nil {
			*m = map[string]string{}
		}
		if _, ok := (*m)[key]; !ok {
			(*m)[key] = value
		}
	}
	for key, value := range map[string]string{
		batch.LegacyJobNameLabel: o.Name, batch.JobNameLabel: o.Name,
		batch.LegacyControllerUidLabel: string(o.UID), batch.ControllerUidLabel: string(o.UID),
	} {
		set(&o.Spec.Template.Labels, key, value)
	}
	if o.Spec.Selector == nil {
		o.Spec.Selector = &metav1.LabelSelector{}
	}
	set(&o.Spec.Selector.MatchLabels, batch.ControllerUidLabel, string(o.UID))
}

// updateJob validates the update of a Job that was created as createJob does.
func updateJob(o, was *batch.Job) field.ErrorList {
	createJob(was)
	o.UID, o.Status = was.UID, was.Status
	podutil.DropDisabledTemplateFields(&o.Spec.Template, &was.Spec.Template)
	options := jobOptions(o, was)
	return append(batchvalidation.ValidateJob(o, options), batchvalidation.ValidateJobUpdate(o, was, options)...)
}

func jobOptions(o, was *batch.Job) batchvalidation.JobValidationOptions {
	options := batchvalidation.JobValidationOptions{RequirePrefixedLabels: true}
	if was == nil {
		options.PodValidationOptions = podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)
		return options
	}
	options.PodValidationOptions = podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, &was.Spec.Template)
	options.AllowInvalidLabelValueInSelector = options.AllowInvalidLabelValueInSelector ||
		metav1validation.LabelSelectorHasInvalidLabelValue(was.Spec.Selector)
	mutable := was.Spec.Suspend != nil && *was.Spec.Suspend && was.Status.Active == 0 &&
		(was.Status.StartTime == nil || batchvalidation.IsConditionTrue(was.Status.Conditions, batch.JobSuspended))
	options.AllowMutablePodResources, options.AllowMutableSchedulingDirectives = mutable, mutable
	_, hadName := was.Spec.Template.Labels[batch.JobNameLabel]
	_, hadUID := was.Spec.Template.Labels[batch.ControllerUidLabel]
	options.RequirePrefixedLabels = hadName && hadUID
	return options
}

// updateJobStatus does what the strategy of the subresource status does: most rules are checked
// when what they are about changes.
func updateJobStatus(o, was *batch.Job) field.ErrorList {
	o.Spec = was.Spec
	turned := func(is func(*batch.Job) bool) bool { return is(o) != is(was) }
	has := func(c batch.JobConditionType) func(*batch.Job) bool {
		return func(j *batch.Job) bool { return batchvalidation.IsConditionTrue(j.Status.Conditions, c) }
	}
	equal32 := func(a, b *int32) bool { return a == b || a != nil && b != nil && *a == *b }
	equalText := func(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
	indexed := o.Spec.CompletionMode != nil && *o.Spec.CompletionMode == batch.IndexedCompletion
	finished, complete := turned(batchvalidation.IsJobFinished), turned(batchvalidation.IsJobComplete)
	failed := turned(batchvalidation.IsJobFailed)
	completedIndexes := o.Status.CompletedIndexes != was.Status.CompletedIndexes
	failedIndexes := !equalText(o.Status.FailedIndexes, was.Status.FailedIndexes)
	active := o.Status.Active != was.Status.Active
	start, completion := !o.Status.StartTime.Equal(was.Status.StartTime), !o.Status.CompletionTime.Equal(was.Status.CompletionTime)
	suspendedAndEmpty := o.Spec.Suspend != nil && *o.Spec.Suspend && o.Spec.Completions != nil && *o.Spec.Completions == 0
	resumes := has(batch.JobSuspended)(was) && batchvalidation.IsConditionFalse(o.Status.Conditions, batch.JobSuspended)
	return batchvalidation.ValidateJobUpdateStatus(o, was, batchvalidation.JobStatusValidationOptions{
		RejectDecreasingSucceededCounter:             !indexed || !equal32(o.Spec.Completions, o.Spec.Parallelism),
		RejectDecreasingFailedCounter:                true,
		RejectDisablingTerminalCondition:             true,
		RejectInvalidCompletedIndexes:                completedIndexes,
		RejectInvalidFailedIndexes:                   failedIndexes,
		RejectCompletedIndexesForNonIndexedJob:       completedIndexes,
		RejectFailedIndexesForNoBackoffLimitPerIndex: failedIndexes,
		RejectFailedIndexesOverlappingCompleted:      failedIndexes || completedIndexes,
		RejectFailedJobWithoutFailureTarget:          failed || failedIndexes,
		RejectCompleteJobWithoutSuccessCriteriaMet:   complete || turned(has(batch.JobSuccessCriteriaMet)),
		RejectFinishedJobWithActivePods:              finished || active,
		RejectFinishedJobWithoutStartTime:            (finished || start) && !suspendedAndEmpty,
		RejectFinishedJobWithUncountedTerminatedPods: true,
		RejectStartTimeUpdateForUnsuspendedJob:       start && !resumes,
		RejectCompletionTimeBeforeStartTime:          start || completion,
		RejectMutatingCompletionTime:                 true,
		RejectNotCompleteJobWithCompletionTime:       complete || completion,
		RejectCompleteJobWithoutCompletionTime:       complete || completion,
		RejectCompleteJobWithFailedCondition:         complete || failed,
		RejectCompleteJobWithFailureTargetCondition:  complete || turned(has(batch.JobFailureTarget)),
		AllowForSuccessCriteriaMetInExtendedScope:    true,
		RejectMoreReadyThanActivePods:                active || !equal32(o.Status.Ready, was.Status.Ready),
		RejectFinishedJobWithTerminatingPods:         finished || !equal32(o.Status.Terminating, was.Status.Terminating),
	})
}

func createCronJob(o *batch.CronJob) field.ErrorList {
	o.Status = batch.CronJobStatus{}
	template := &o.Spec.JobTemplate.Spec.Template
	podutil.DropDisabledTemplateFields(template, nil)
	return batchvalidation.ValidateCronJobCreate(o, podutil.GetValidationOptionsFromPodTemplate(template, nil))
}

func updateCronJob(o, was *batch.CronJob) field.ErrorList {
	o.Status = was.Status
	template, wasTemplate := &o.Spec.JobTemplate.Spec.Template, &was.Spec.JobTemplate.Spec.Template
	podutil.DropDisabledTemplateFields(template, wasTemplate)
	return batchvalidation.ValidateCronJobUpdate(o, was, podutil.GetValidationOptionsFromPodTemplate(template, wasTemplate))
}
