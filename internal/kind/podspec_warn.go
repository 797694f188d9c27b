package kind

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// annotationFields are annotations that stood for fields of a pod once, or the beginnings of their names up to a slash, and
// the fields. Old manifests still ask for protection by them, and must not believe that they have it.
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

// warnPod tells of annotations that have no effect, of a pod or of the template at p; nil for a pod itself.
func warnPod(p *field.Path, m *metav1.ObjectMeta) []string {
	annotations := field.NewPath("metadata", "annotations")
	if p != nil {
		annotations = p.Child("metadata", "annotations")
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
	return out
}
