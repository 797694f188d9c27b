package batch

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Limits of Indexed Jobs, which bound the size of their status.
const (
	maxIndexedParallelism = 100_000
	maxFailedIndexes      = 100_000
	// A Job of more than manyCompletions has at most parallelismOfMany and failedIndexesOfMany with
	// backoffLimitPerIndex.
	manyCompletions     = 100_000
	parallelismOfMany   = 10_000
	failedIndexesOfMany = 10_000

	maxManagedBy = 63
)

func checkJob(j *batchv1.Job, c *rules.Checker) {
	p, s := field.NewPath("spec"), j.GetSpec()
	if s == nil {
		c.Required(p, "")
		return
	}
	checkGeneratedSelector(j, c)
	checkJobSpec(c, p, s)
	checkSelector(c, p, s)
	if s.GetCompletionMode() == Indexed && s.GetCompletions() > 0 {
		last := fmt.Sprintf("%s-%d", j.GetMetadata().GetName(), s.GetCompletions()-1)
		if len(validation.IsDNS1123Label(last)) > 0 {
			c.Invalid(rules.MetadataPath.Child("name"), j.GetMetadata().GetName(), "will not able to create pod with invalid DNS label: "+last)
		}
	}
}

// checkGeneratedSelector checks that the selector and the labels of the template are those that the
// server generates, unless the client makes both.
func checkGeneratedSelector(j *batchv1.Job, c *rules.Checker) {
	s := j.GetSpec()
	if s.GetManualSelector() || s.GetSelector() == nil {
		return
	}
	if j.GetMetadata().GetUid() == "" {
		c.Required(rules.MetadataPath.Child("uid"), "")
	}
	have, want := s.GetTemplate().GetMetadata().GetLabels(), labels.Set{}
	for _, label := range generatedLabels(j) {
		key, value := label[0], label[1]
		want[key] = value
		at, detail := field.NewPath("spec", "template", "metadata", "labels").Key(key), fmt.Sprintf("must be '%s'", value)
		if actual, set := have[key]; !set {
			c.Required(at, detail)
		} else if actual != value {
			c.Invalid(at, have, detail)
		}
	}
	if sel, err := object.LabelSelector(s.GetSelector()); err == nil && !sel.Matches(want) {
		c.Invalid(field.NewPath("spec", "selector"), column.FormatLabelSelector(s.GetSelector()), "`selector` not auto-generated")
	}
}

func checkSelector(c *rules.Checker, p *field.Path, s *batchv1.JobSpec) {
	if s.GetSelector() == nil {
		c.Required(p.Child("selector"), "")
	} else {
		c.LabelSelector(p.Child("selector"), s.GetSelector())
	}
	have := s.GetTemplate().GetMetadata().GetLabels()
	if sel, err := object.LabelSelector(s.GetSelector()); err == nil && s.GetTemplate() != nil && !sel.Matches(labels.Set(have)) {
		c.Invalid(p.Child("template", "metadata", "labels"), have, "`selector` does not match template `labels`")
	}
}

// checkJobSpec checks what Jobs and the templates of CronJobs share.
func checkJobSpec(c *rules.Checker, p *field.Path, s *batchv1.JobSpec) {
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		c.Required(p.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified")
	}
	if s.ManagedBy != nil {
		c.List = append(c.List, validation.IsDomainPrefixedPath(p.Child("managedBy"), s.GetManagedBy())...)
		if len(s.GetManagedBy()) > maxManagedBy {
			c.Add(field.TooLong(p.Child("managedBy"), "", maxManagedBy))
		}
	}
	switch {
	case s.GetCompletionMode() == Indexed:
		checkIndexed(c, p, s)
	case s.CompletionMode != nil && s.GetCompletionMode() == "":
		c.Add(field.NotSupported(p.Child("completionMode"), "", []string{NonIndexed, Indexed}))
	case s.CompletionMode == nil || s.GetCompletionMode() == NonIndexed:
		if s.BackoffLimitPerIndex != nil {
			c.Invalid(p.Child("backoffLimitPerIndex"), s.GetBackoffLimitPerIndex(), "requires indexed completion mode")
		}
		if s.MaxFailedIndexes != nil {
			c.Invalid(p.Child("maxFailedIndexes"), s.GetMaxFailedIndexes(), "requires indexed completion mode")
		}
	}
	checkPodFailurePolicy(c, p.Child("podFailurePolicy"), s)
	if s.SuccessPolicy != nil {
		if s.GetCompletionMode() != Indexed {
			c.Invalid(p.Child("successPolicy"), field.OmitValueType{}, "requires indexed completion mode")
		} else {
			checkSuccessPolicy(c, p.Child("successPolicy"), s)
		}
	}
	if s.PodReplacementPolicy != nil {
		allowed := []string{ReplaceFailed, ReplaceTerminatingOrFailed}
		if s.PodFailurePolicy != nil {
			allowed = allowed[:1]
		}
		if !slices.Contains(allowed, s.GetPodReplacementPolicy()) {
			c.Add(field.NotSupported(p.Child("podReplacementPolicy"), s.GetPodReplacementPolicy(), allowed))
		}
	}
	if s.GetTemplate() != nil {
		core.CheckPodTemplate(c, p.Child("template"), s.GetTemplate())
		checkRestartPolicy(c, p.Child("template", "spec", "restartPolicy"), s)
	}
}

func checkIndexed(c *rules.Checker, p *field.Path, s *batchv1.JobSpec) {
	completions, parallelism, failed := p.Child("completions"), p.Child("parallelism"), p.Child("maxFailedIndexes")
	if s.Completions == nil {
		c.Required(completions, "when completion mode is "+Indexed)
	}
	if n := s.GetParallelism(); n > maxIndexedParallelism {
		c.Invalid(parallelism, n, fmt.Sprintf("must be less than or equal to %d when completion mode is %s", maxIndexedParallelism, Indexed))
	}
	if s.Completions != nil && s.GetMaxFailedIndexes() > s.GetCompletions() {
		c.Invalid(failed, s.GetMaxFailedIndexes(), "must be less than or equal to completions")
	}
	if n := s.GetMaxFailedIndexes(); n > maxFailedIndexes {
		c.Invalid(failed, n, fmt.Sprintf("must be less than or equal to %d", maxFailedIndexes))
	}
	if s.GetCompletions() <= manyCompletions || s.BackoffLimitPerIndex == nil {
		return
	}
	if s.MaxFailedIndexes == nil {
		c.Required(failed, fmt.Sprintf("must be specified when completions is above %d", manyCompletions))
	}
	const detail = "must be less than or equal to %d when completions are above %d and used with backoff limit per index"
	if n := s.GetParallelism(); n > parallelismOfMany {
		c.Invalid(parallelism, n, fmt.Sprintf(detail, parallelismOfMany, manyCompletions))
	}
	if n := s.GetMaxFailedIndexes(); n > failedIndexesOfMany {
		c.Invalid(failed, n, fmt.Sprintf(detail, failedIndexesOfMany, manyCompletions))
	}
}

func checkRestartPolicy(c *rules.Checker, p *field.Path, s *batchv1.JobSpec) {
	switch r := s.GetTemplate().GetSpec().GetRestartPolicy(); {
	case r == core.RestartAlways || r == "":
		c.Required(p, fmt.Sprintf("valid values: %q, %q", core.RestartOnFailure, core.RestartNever))
	case r != core.RestartOnFailure && r != core.RestartNever:
		c.Add(field.NotSupported(p, r, []string{core.RestartOnFailure, core.RestartNever}))
	case s.PodFailurePolicy != nil && r != core.RestartNever:
		c.Invalid(p, r, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", core.RestartNever))
	}
}

func checkPodFailurePolicy(c *rules.Checker, p *field.Path, s *batchv1.JobSpec) {
	var containers []string
	for _, list := range [][]*corev1.Container{s.GetTemplate().GetSpec().GetContainers(), s.GetTemplate().GetSpec().GetInitContainers()} {
		for _, container := range list {
			containers = append(containers, container.GetName())
		}
	}
	for i, rule := range s.GetPodFailurePolicy().GetRules() {
		at := p.Child("rules").Index(i)
		if rule.GetAction() == ActionFailIndex && s.BackoffLimitPerIndex == nil {
			c.Invalid(at.Child("action"), rule.GetAction(), "requires the backoffLimitPerIndex to be set")
		}
		byCode, byCondition := rule.OnExitCodes != nil, len(rule.GetOnPodConditions()) > 0
		if byCode {
			checkExitCodes(c, at.Child("onExitCodes"), rule.GetOnExitCodes(), containers)
		}
		if byCode == byCondition {
			detail := "specifying one of OnExitCodes and OnPodConditions is required"
			if byCode {
				detail = "specifying both OnExitCodes and OnPodConditions is not supported"
			}
			c.Invalid(at, field.OmitValueType{}, detail)
		}
	}
}

func checkExitCodes(c *rules.Checker, p *field.Path, r *batchv1.PodFailurePolicyOnExitCodesRequirement, containers []string) {
	if r.ContainerName != nil && !slices.Contains(containers, r.GetContainerName()) {
		c.Invalid(p.Child("containerName"), r.GetContainerName(), "must be one of the container or initContainer names in the pod template")
	}
	values := p.Child("values")
	if len(r.GetValues()) == 0 {
		c.Invalid(values, r.GetValues(), "at least one value is required")
	}
	seen := map[int32]bool{}
	for i, code := range r.GetValues() {
		if code == 0 && r.GetOperator() == OperatorIn {
			c.Invalid(values.Index(i), code, "must not be 0 for the In operator")
		}
		if seen[code] {
			c.Add(field.Duplicate(values.Index(i), code))
		}
		seen[code] = true
	}
	if !slices.IsSorted(r.GetValues()) {
		c.Invalid(values, r.GetValues(), "must be ordered")
	}
}

func checkSuccessPolicy(c *rules.Checker, p *field.Path, s *batchv1.JobSpec) {
	if len(s.GetSuccessPolicy().GetRules()) == 0 {
		c.Required(p.Child("rules"), "at least one rules must be specified when the successPolicy is specified")
	}
	for i, rule := range s.GetSuccessPolicy().GetRules() {
		at := p.Child("rules").Index(i)
		if rule.SucceededCount == nil && rule.SucceededIndexes == nil {
			c.Required(at, "at least one of succeededCount or succeededIndexes must be specified")
		}
		total, err := checkIndexes(rule.GetSucceededIndexes(), int(s.GetCompletions()))
		if err != nil {
			c.Invalid(at.Child("succeededIndexes"), rule.GetSucceededIndexes(), "error parsing succeededIndexes: "+err.Error())
		}
		const detail = "must be less than or equal to %d (the number of %s)"
		if n := rule.GetSucceededCount(); n > s.GetCompletions() {
			c.Invalid(at.Child("succeededCount"), n, fmt.Sprintf(detail, s.GetCompletions(), "specified completions"))
		}
		if n := rule.GetSucceededCount(); rule.SucceededIndexes != nil && int(n) > total {
			c.Invalid(at.Child("succeededCount"), n, fmt.Sprintf(detail, total, "indexes in the specified succeededIndexes field"))
		}
	}
}
