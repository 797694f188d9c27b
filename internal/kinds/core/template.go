package core

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// CheckPodTemplate checks what the pod templates of all owners share.
func CheckPodTemplate(c *rules.Checker, p *field.Path, t *corev1.PodTemplateSpec) {
	c.Annotations(p.Child("metadata", "annotations"), t.GetMetadata().GetAnnotations())
	checkPodSpec(c, p.Child("spec"), t.GetSpec())
	checkNoEphemeral(c, p.Child("spec"), t.GetSpec())
}

// CheckTemplate checks the pod template of an owner whose pods do not end by themselves. The errors
// name its kind.
func CheckTemplate(c *rules.Checker, owner string, p *field.Path, t *corev1.PodTemplateSpec) {
	CheckPodTemplate(c, p, t)
	if r := t.GetSpec().GetRestartPolicy(); r != RestartAlways && (r == RestartOnFailure || r == RestartNever) {
		c.Add(field.NotSupported(p.Child("spec", "restartPolicy"), r, []string{RestartAlways}))
	}
	if t.GetSpec().GetActiveDeadlineSeconds() != 0 {
		c.Forbidden(p.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+owner+" is not Supported")
	}
}

// DefaultTemplate fills in the defaults of a pod template that depend on other fields.
func DefaultTemplate(t *corev1.PodTemplateSpec) {
	if t != nil {
		defaultPodSpec(t.GetSpec())
	}
}

// TemplateContainers returns the names of a template's containers, separated by commas.
func TemplateContainers(t *corev1.PodTemplateSpec) string {
	var out []string
	for _, c := range t.GetSpec().GetContainers() {
		out = append(out, c.GetName())
	}
	return strings.Join(out, ",")
}

// TemplateImages returns the images of a template's containers, separated by commas.
func TemplateImages(t *corev1.PodTemplateSpec) string {
	var out []string
	for _, c := range t.GetSpec().GetContainers() {
		out = append(out, c.GetImage())
	}
	return strings.Join(out, ",")
}
