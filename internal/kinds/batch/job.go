// Package batch has the kinds of the group batch: their rules, defaults, columns and constants, and
// the sets of indexes and the schedules that their controllers read.
package batch

import (
	"fmt"
	"maps"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Conditions of a Job.
const (
	JobComplete           = "Complete"
	JobFailed             = "Failed"
	JobSuspended          = "Suspended"
	JobFailureTarget      = "FailureTarget"
	JobSuccessCriteriaMet = "SuccessCriteriaMet"
)

// Completion modes, actions of a podFailurePolicy, operators on exit codes, and policies of
// replacement.
const (
	NonIndexed = "NonIndexed"
	Indexed    = "Indexed"

	ActionFailJob   = "FailJob"
	ActionFailIndex = "FailIndex"
	ActionIgnore    = "Ignore"
	ActionCount     = "Count"

	OperatorIn    = "In"
	OperatorNotIn = "NotIn"

	ReplaceTerminatingOrFailed = "TerminatingOrFailed"
	ReplaceFailed              = "Failed"
)

// Labels, annotations and the finalizer of the pods of Jobs, and the name of the controller of Jobs
// in managedBy.
const (
	LabelJobName             = "batch.kubernetes.io/job-name"
	LabelControllerUID       = "batch.kubernetes.io/controller-uid"
	legacyLabelJobName       = "job-name"
	legacyLabelControllerUID = "controller-uid"

	// CompletionIndex is an annotation and a label.
	CompletionIndex = "batch.kubernetes.io/job-completion-index"
	// AnnotationFailureCount and AnnotationIgnoredFailureCount say how many pods of the index
	// failed before this one: those that count against backoffLimitPerIndex, and those that do not.
	AnnotationFailureCount        = "batch.kubernetes.io/job-index-failure-count"
	AnnotationIgnoredFailureCount = "batch.kubernetes.io/job-index-ignored-failure-count"
	// FinalizerTracking holds a pod until its Job has counted it.
	FinalizerTracking = "batch.kubernetes.io/job-tracking"

	JobController = "kubernetes.io/job-controller"
)

var (
	jobRules = rules.For[*batchv1.Job]{
		Name:        rules.NameIsSubdomain,
		Defaults:    defaultJob,
		Create:      generateSelector,
		Check:       func(j *batchv1.Job, c *rules.Checker) { checkJob(j, c) },
		CheckUpdate: checkJobUpdate,
		CheckStatus: checkJobStatus,
		Warn: func(j *batchv1.Job) []string {
			return append(warnName(j), warnJobSpec(field.NewPath("spec"), j.GetSpec())...)
		},
	}
	jobColumns = []scheme.Column{
		column.New("STATUS", JobState),
		column.New("COMPLETIONS", jobCompletions),
		column.Aged("DURATION", jobDuration),
		column.AgeColumn,
		column.Wide("CONTAINERS", func(j *batchv1.Job) string { return core.TemplateContainers(j.GetSpec().GetTemplate()) }),
		column.Wide("IMAGES", func(j *batchv1.Job) string { return core.TemplateImages(j.GetSpec().GetTemplate()) }),
		column.Wide("SELECTOR", func(j *batchv1.Job) string { return column.FormatLabelSelector(j.GetSpec().GetSelector()) }),
	}
)

// HasCondition reports whether a condition of a Job is true.
func HasCondition(j *batchv1.Job, typ string) bool {
	return condition.Find(j.GetStatus().GetConditions(), typ).GetStatus() == condition.True
}

// Finished returns the condition with which a Job has ended, nil while it has not.
func Finished(j *batchv1.Job) *batchv1.JobCondition {
	for _, c := range j.GetStatus().GetConditions() {
		if (c.GetType() == JobComplete || c.GetType() == JobFailed) && c.GetStatus() == condition.True {
			return c
		}
	}
	return nil
}

// JobState summarizes the state of a Job in a word, as tables show it.
func JobState(j *batchv1.Job) string {
	switch {
	case HasCondition(j, JobComplete):
		return JobComplete
	case HasCondition(j, JobFailed):
		return JobFailed
	case j.GetMetadata().GetDeletionTimestamp() != nil:
		return "Terminating"
	case HasCondition(j, JobSuspended):
		return JobSuspended
	case HasCondition(j, JobFailureTarget):
		return JobFailureTarget
	case HasCondition(j, JobSuccessCriteriaMet):
		return JobSuccessCriteriaMet
	}
	return "Running"
}

func jobCompletions(j *batchv1.Job) string {
	s, done := j.GetSpec(), j.GetStatus().GetSucceeded()
	switch {
	case s != nil && s.Completions != nil:
		return fmt.Sprintf("%d/%d", done, s.GetCompletions())
	case s.GetParallelism() > 1:
		return fmt.Sprintf("%d/1 of %d", done, s.GetParallelism())
	}
	return fmt.Sprintf("%d/1", done)
}

func jobDuration(j *batchv1.Job, now time.Time) string {
	start, end := j.GetStatus().GetStartTime(), j.GetStatus().GetCompletionTime()
	switch {
	case start == nil:
		return ""
	case end == nil:
		return column.HumanDuration(now.Sub(start.AsTime()))
	}
	return column.HumanDuration(end.AsTime().Sub(start.AsTime()))
}

func defaultJob(j *batchv1.Job) {
	s := j.Spec
	defaultJobSpec(s)
	setDefault(&s.ManualSelector, false)
	setDefault(&s.Suspend, false)
	setDefault(&s.CompletionMode, NonIndexed)
	if s.Parallelism == nil {
		setDefault(&s.Completions, 1)
	}
	setDefault(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		setDefault(&s.BackoffLimit, math.MaxInt32)
	}
	setDefault(&s.BackoffLimit, 6)
	if s.PodFailurePolicy != nil {
		setDefault(&s.PodReplacementPolicy, ReplaceFailed)
	}
	setDefault(&s.PodReplacementPolicy, ReplaceTerminatingOrFailed)
	if labels := s.GetTemplate().GetMetadata().GetLabels(); len(j.GetMetadata().GetLabels()) == 0 && len(labels) > 0 && j.Metadata != nil {
		j.Metadata.Labels = maps.Clone(labels)
	}
}

func setDefault[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// defaultJobSpec fills in what the template of a CronJob gets too.
func defaultJobSpec(s *batchv1.JobSpec) { core.DefaultTemplate(s.GetTemplate()) }

// generatedLabels are the labels by which a Job without manualSelector finds its pods.
func generatedLabels(j *batchv1.Job) [][2]string {
	name, uid := j.GetMetadata().GetName(), j.GetMetadata().GetUid()
	return [][2]string{{legacyLabelControllerUID, uid}, {legacyLabelJobName, name}, {LabelControllerUID, uid}, {LabelJobName, name}}
}

// generateSelector adds labels to the template of a new Job and a selector of them, unless the
// client makes both. Values that the client has set are left for checkJob to refuse.
func generateSelector(j *batchv1.Job) {
	s := j.GetSpec()
	if s == nil || s.GetTemplate() == nil || s.GetManualSelector() {
		return
	}
	if s.Template.Metadata == nil {
		s.Template.Metadata = &metav1.ObjectMeta{}
	}
	if s.Selector == nil {
		s.Selector = &metav1.LabelSelector{}
	}
	for _, label := range generatedLabels(j) {
		setMissing(&s.Template.Metadata.Labels, label[0], label[1])
	}
	setMissing(&s.Selector.MatchLabels, LabelControllerUID, j.GetMetadata().GetUid())
}

func setMissing(m *map[string]string, key, value string) {
	if _, set := (*m)[key]; set {
		return
	}
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// warnName warns of names that are no labels in DNS, though pods have them as host names.
func warnName(o scheme.Object) []string {
	wrong := validation.IsDNS1123Label(o.GetMetadata().GetName())
	if len(wrong) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "+
		"a DNS label is recommended: %v", wrong)}
}

func warnJobSpec(p *field.Path, s *batchv1.JobSpec) []string {
	var out []string
	if s.GetCompletionMode() == Indexed && s.GetCompletions() > manyCompletions && s.GetParallelism() > parallelismOfMany {
		out = append(out, fmt.Sprintf("%s: completedIndexes may grow too large to store when many of more than %d indexes fail and "+
			"parallelism is higher than %d", p, manyCompletions, parallelismOfMany))
	}
	t := s.GetTemplate()
	return append(out, core.WarnPod(p.Child("template"), t.GetMetadata(), t.GetSpec())...)
}
