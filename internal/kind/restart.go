package kind

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// What rules about restarts say.
const (
	RestartRuleRestart    = "Restart"
	RestartRuleRestartAll = "RestartAllContainers"
	ExitCodeIn            = "In"
	ExitCodeNotIn         = "NotIn"
)

const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

// RestartRule is the first of a container's rules that is about an exit code, nil when none is: then its restart policy
// decides, or else the pod's.
func RestartRule(c *corev1.Container, exitCode int32) *corev1.ContainerRestartRule {
	for _, r := range c.GetRestartPolicyRules() {
		if on := r.GetExitCodes(); on != nil && slices.Contains(on.GetValues(), exitCode) == (on.GetOperator() == ExitCodeIn) {
			return r
		}
	}
	return nil
}

// restartPolicy checks when a container of its own wish is started again.
func (c *checker) restartPolicy(p *field.Path, x *corev1.Container) {
	if x.RestartPolicy != nil {
		c.oneOf(p.Child("restartPolicy"), x.GetRestartPolicy(), RestartAlways, RestartNever, RestartOnFailure)
	}
	rules := p.Child("restartPolicyRules")
	n := len(x.GetRestartPolicyRules())
	if n > 0 && x.RestartPolicy == nil {
		c.required(p.Child("restartPolicy"), "must be specified when `restartPolicyRules` are")
	}
	if n > maxRestartRules {
		c.add(field.TooMany(rules, n, maxRestartRules))
	}
	for i, r := range x.GetRestartPolicyRules() {
		at := rules.Index(i)
		c.oneOf(at.Child("action"), r.GetAction(), RestartRuleRestart, RestartRuleRestartAll)
		codes := at.Child("exitCodes")
		if r.GetExitCodes() == nil {
			c.required(codes, "must be specified")
			continue
		}
		c.oneOf(codes.Child("operator"), r.GetExitCodes().GetOperator(), ExitCodeIn, ExitCodeNotIn)
		values := r.GetExitCodes().GetValues()
		switch {
		case len(values) == 0:
			c.required(codes.Child("values"), "at least one exit code must be specified")
		case len(values) > maxRestartExitCodes:
			c.add(field.TooMany(codes.Child("values"), len(values), maxRestartExitCodes))
		}
		seen := map[int32]bool{}
		for j, v := range values {
			if v < 0 || v > 255 {
				c.invalid(codes.Child("values").Index(j), v, "must be between 0 and 255, inclusive")
			}
			if seen[v] {
				c.add(field.Duplicate(codes.Child("values").Index(j), v))
			}
			seen[v] = true
		}
	}
}
