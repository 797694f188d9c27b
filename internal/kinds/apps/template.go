package apps

import (
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// checkSelectorAndTemplate checks the selector and the template of a Deployment or ReplicaSet: the
// selector must match the template's labels. The errors name the kind of the owner.
func checkSelectorAndTemplate(c *rules.Checker, owner string, p *field.Path, s *metav1.LabelSelector, t *corev1.PodTemplateSpec) {
	selector := p.Child("selector")
	switch {
	case s == nil:
	case len(s.GetMatchLabels()) == 0 && len(s.GetMatchExpressions()) == 0:
		c.Invalid(selector, "{}", "empty selector is invalid for "+strings.ToLower(owner))
	default:
		c.LabelSelector(selector, s)
	}
	if t == nil {
		return
	}
	at := p.Child("template")
	sel, err := object.LabelSelector(s)
	// A selector that cannot be parsed has been reported above.
	if err == nil && !sel.Empty() && s != nil && !sel.Matches(labels.Set(t.GetMetadata().GetLabels())) {
		c.Invalid(at.Child("metadata", "labels"), t.GetMetadata().GetLabels(), "`selector` does not match template `labels`")
	}
	core.CheckTemplate(c, owner, at, t)
}
