package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// annotationFields maps former annotations of pods, or their prefixes up to a slash, to the fields
// that replaced them. Old manifests request protection by them, so the annotations draw a warning.
var annotationFields = map[string]string{
	"seccomp.security.alpha.kubernetes.io/pod":        "securityContext.seccompProfile",
	"container.seccomp.security.alpha.kubernetes.io/": "securityContext.seccompProfile of the container",
	"container.apparmor.security.beta.kubernetes.io/": "securityContext.appArmorProfile of the container",
	"scheduler.alpha.kubernetes.io/critical-pod":      "priorityClassName",
	"security.alpha.kubernetes.io/sysctls":            "securityContext.sysctls",
	"security.alpha.kubernetes.io/unsafe-sysctls":     "securityContext.sysctls",
	"scheduler.alpha.kubernetes.io/affinity":          "affinity",
	"scheduler.alpha.kubernetes.io/tolerations":       "tolerations",
	"pod.beta.kubernetes.io/init-containers":          "initContainers",
	"pod.beta.kubernetes.io/hostname":                 "hostname",
	"pod.beta.kubernetes.io/subdomain":                "subdomain",
}

// WarnPod returns warnings about annotations without effect and unknown capabilities of a pod, or
// of the template at p; p is nil for a pod.
func WarnPod(p *field.Path, m *metav1.ObjectMeta, spec *corev1.PodSpec) []string {
	annotations, at := field.NewPath("metadata", "annotations"), field.NewPath("spec")
	if p != nil {
		annotations, at = p.Child("metadata", "annotations"), p.Child("spec")
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m.GetAnnotations())) {
		instead := annotationFields[name]
		if i := strings.LastIndex(name, "/"); i >= 0 && instead == "" {
			instead = annotationFields[name[:i+1]]
		}
		if instead != "" {
			out = append(out, fmt.Sprintf("%s: this annotation has no effect: use the field %s", annotations.Key(name), instead))
		}
	}
	for _, list := range []struct {
		field string
		of    []*corev1.Container
	}{{"initContainers", spec.GetInitContainers()}, {"containers", spec.GetContainers()}, {"ephemeralContainers", EphemeralContainers(spec)}} {
		for i, c := range list.of {
			out = append(out, warnCapabilities(at.Child(list.field).Index(i).Child("securityContext", "capabilities"), c)...)
		}
	}
	return out
}

// warnCapabilities returns warnings about unknown capabilities, with which the container does not
// start.
func warnCapabilities(p *field.Path, c *corev1.Container) []string {
	caps := c.GetSecurityContext().GetCapabilities()
	var out []string
	for _, list := range []struct {
		field string
		names []string
	}{{"add", caps.GetAdd()}, {"drop", caps.GetDrop()}} {
		for i, name := range list.names {
			if _, known := Capability(name); known {
				continue
			}
			effect := "the container will not start"
			if c.GetSecurityContext().GetPrivileged() {
				effect = "it has no effect on a privileged container"
			}
			out = append(out,
				fmt.Sprintf("%s: unknown capability %q: %s: want a name of capabilities(7), such as NET_ADMIN, or ALL",
					p.Child(list.field).Index(i), name, effect))
		}
	}
	return out
}
