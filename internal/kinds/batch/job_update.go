package batch

import (
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func checkJobUpdate(new, old *batchv1.Job, c *rules.Checker) {
	p, s, was := field.NewPath("spec"), new.GetSpec(), old.GetSpec()
	if s == nil || was == nil {
		return // It is required.
	}
	immutable := func(name string, new, old proto.Message) {
		if !proto.Equal(new, old) {
			c.Invalid(p.Child(name), field.OmitValueType{}, rules.Immutable)
		}
	}
	checkCompletionsUpdate(c, p.Child("completions"), s, was)
	if !proto.Equal(s.GetSelector(), was.GetSelector()) {
		c.Invalid(p.Child("selector"), column.FormatLabelSelector(s.GetSelector()), rules.Immutable)
	}
	if isTemplateMutable(old) {
		if !proto.Equal(s.GetTemplate().GetSpec(), withMutable(was.GetTemplate(), s.GetTemplate()).GetSpec()) {
			c.Invalid(p.Child("template", "spec"), field.OmitValueType{}, rules.Immutable)
		}
	} else {
		immutable("template", s.GetTemplate(), was.GetTemplate())
	}
	if s.GetCompletionMode() != was.GetCompletionMode() {
		c.Invalid(p.Child("completionMode"), s.GetCompletionMode(), rules.Immutable)
	}
	immutable("podFailurePolicy", s.GetPodFailurePolicy(), was.GetPodFailurePolicy())
	if !rules.Equal(s.BackoffLimitPerIndex, was.BackoffLimitPerIndex) {
		c.Invalid(p.Child("backoffLimitPerIndex"), s.GetBackoffLimitPerIndex(), rules.Immutable)
	}
	if !rules.Equal(s.ManagedBy, was.ManagedBy) {
		c.Invalid(p.Child("managedBy"), s.GetManagedBy(), rules.Immutable)
	}
	immutable("successPolicy", s.GetSuccessPolicy(), was.GetSuccessPolicy())
}

// checkCompletionsUpdate lets an Indexed Job change its completions together with its parallelism.
func checkCompletionsUpdate(c *rules.Checker, p *field.Path, s, was *batchv1.JobSpec) {
	switch {
	case rules.Equal(s.Completions, was.Completions):
	case s.GetCompletionMode() != Indexed:
		c.Invalid(p, s.GetCompletions(), rules.Immutable)
	case s.Completions != nil && s.GetCompletions() != s.GetParallelism():
		c.Invalid(p, s.GetCompletions(), "can only be modified in tandem with spec.parallelism")
	}
}

// isTemplateMutable reports whether the template of a stored Job may change in part: it is
// suspended and has no pods.
func isTemplateMutable(j *batchv1.Job) bool {
	return j.GetSpec().GetSuspend() && j.GetStatus().GetActive() == 0 &&
		(j.GetStatus().GetStartTime() == nil || HasCondition(j, JobSuspended))
}

// withMutable returns a template with those parts of another one that a suspended Job may change:
// where its pods are placed and what their containers require.
func withMutable(template, from *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	t := proto.CloneOf(template)
	if t.GetSpec() == nil || from.GetSpec() == nil {
		return t
	}
	s, f := t.Spec, from.GetSpec()
	s.NodeSelector, s.Tolerations, s.SchedulingGates = f.GetNodeSelector(), f.GetTolerations(), f.GetSchedulingGates()
	if f.GetAffinity() != nil && s.Affinity == nil {
		s.Affinity = &corev1.Affinity{}
	}
	if s.Affinity != nil {
		s.Affinity.NodeAffinity = f.GetAffinity().GetNodeAffinity()
	}
	if f.GetAffinity() == nil && proto.Size(s.Affinity) == 0 {
		s.Affinity = nil
	}
	takeResources(s.GetContainers(), f.GetContainers())
	takeResources(s.GetInitContainers(), f.GetInitContainers())
	return t
}

func takeResources(containers, from []*corev1.Container) {
	if len(containers) != len(from) {
		return
	}
	for i, c := range containers {
		if c.GetName() == from[i].GetName() {
			c.Resources = from[i].GetResources()
		}
	}
}
