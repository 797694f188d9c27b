package core

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Actions and operators of restart rules.
const (
	RestartRuleRestart    = "Restart"
	RestartRuleRestartAll = "RestartAllContainers"
	ExitCodeIn            = "In"
	ExitCodeNotIn         = "NotIn"
)

// RestartRule returns the first of a container's rules that matches an exit code, nil when none
// does: then the restart policy of the container or else of the pod decides.
func RestartRule(c *corev1.Container, exitCode int32) *corev1.ContainerRestartRule {
	for _, r := range c.GetRestartPolicyRules() {
		if on := r.GetExitCodes(); on != nil && slices.Contains(on.GetValues(), exitCode) == (on.GetOperator() == ExitCodeIn) {
			return r
		}
	}
	return nil
}

// checkRestartPolicy checks the restart policy of a container.
func checkRestartPolicy(c *rules.Checker, p *field.Path, x *corev1.Container) {
	if len(x.GetRestartPolicyRules()) > 0 && x.RestartPolicy == nil {
		c.Required(p.Child("restartPolicy"), "must be specified when `restartPolicyRules` are")
	}
}
