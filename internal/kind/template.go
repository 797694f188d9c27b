package kind

import (
	"fmt"
	"math"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// selectorAndTemplate checks the selector and the template of a Deployment or ReplicaSet: the
// selector must match the template's labels. The errors name the kind of the owner.
func (c *checker) selectorAndTemplate(owner string, p *field.Path, s *metav1.LabelSelector, t *corev1.PodTemplateSpec) {
	selector := p.Child("selector")
	switch {
	case s == nil:
	case len(s.GetMatchLabels()) == 0 && len(s.GetMatchExpressions()) == 0:
		c.invalid(selector, "{}", "empty selector is invalid for "+strings.ToLower(owner))
	default:
		c.labelSelector(selector, s)
	}
	if t == nil {
		return
	}
	at := p.Child("template")
	sel, err := LabelSelector(s)
	// A selector that cannot be parsed has been reported above.
	if err == nil && !sel.Empty() && s != nil && !sel.Matches(labels.Set(t.GetMetadata().GetLabels())) {
		c.invalid(at.Child("metadata", "labels"), t.GetMetadata().GetLabels(), "`selector` does not match template `labels`")
	}
	c.template(owner, at, t)
}

func (c *checker) template(owner string, p *field.Path, t *corev1.PodTemplateSpec) {
	c.annotations(p.Child("metadata", "annotations"), t.GetMetadata().GetAnnotations())
	c.podSpec(p.Child("spec"), t.GetSpec())
	c.noEphemeral(p.Child("spec"), t.GetSpec())
	if r := t.GetSpec().GetRestartPolicy(); r != RestartAlways && (r == RestartOnFailure || r == RestartNever) {
		c.add(field.NotSupported(p.Child("spec", "restartPolicy"), r, []string{RestartAlways}))
	}
	if t.GetSpec().GetActiveDeadlineSeconds() != 0 {
		c.forbidden(p.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+owner+" is not Supported")
	}
}

func defaultTemplate(t *corev1.PodTemplateSpec) {
	if t != nil {
		defaultPodSpec(t.GetSpec())
	}
}

func templateContainers(t *corev1.PodTemplateSpec) string {
	var out []string
	for _, c := range t.GetSpec().GetContainers() {
		out = append(out, c.GetName())
	}
	return strings.Join(out, ",")
}

func templateImages(t *corev1.PodTemplateSpec) string {
	var out []string
	for _, c := range t.GetSpec().GetContainers() {
		out = append(out, c.GetImage())
	}
	return strings.Join(out, ",")
}

// percentOrCount reads a number of pods that may be a percentage; false when it is neither.
func percentOrCount(v *metav1.IntOrString) (n int32, percent, ok bool) {
	if v.GetType() == 0 {
		return v.GetIntVal(), false, true
	}
	text, ok := strings.CutSuffix(v.GetStrVal(), "%")
	if !ok || text == "" || len(text) > 9 {
		return 0, false, false
	}
	for _, r := range text {
		if r < '0' || r > '9' {
			return 0, false, false
		}
		n = n*10 + int32(r-'0')
	}
	return n, true, true
}

// ScaledValue returns a count, or a percentage of total that is rounded up or down; it returns an
// error for other values. A value that is not set is 0. Values that overflow are the largest int32.
func ScaledValue(v *metav1.IntOrString, total int32, roundUp bool) (int32, error) {
	n, percent, ok := percentOrCount(v)
	if !ok {
		return 0, fmt.Errorf("%q is neither a number nor a percentage", v.GetStrVal())
	}
	if !percent {
		return n, nil
	}
	scaled := int64(n) * int64(total)
	if roundUp {
		scaled += 99
	}
	return int32(min(scaled/100, math.MaxInt32)), nil
}

// Count makes an IntOrString of a number.
func Count(n int32) *metav1.IntOrString { return &metav1.IntOrString{IntVal: n} }

// Text makes an IntOrString of a string, such as 25%.
func Text(s string) *metav1.IntOrString { return &metav1.IntOrString{Type: 1, StrVal: s} }
