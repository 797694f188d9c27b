package apiserver

import (
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/wire"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// parseSelectors returns the filter that both selectors ask for, nil when they select all, and the values that the field
// selector demands of fields.
func parseSelectors(k *kind.Kind, labelSelector, fieldSelector string) (storage.Match, map[string]string, error) {
	byLabel, err := labels.Parse(labelSelector)
	if err != nil {
		return nil, nil, apierr.BadField("labelSelector", "%v", err)
	}
	byField, err := fields.ParseSelector(fieldSelector)
	if err != nil {
		return nil, nil, apierr.BadField("fieldSelector", "%v", err)
	}
	type requirement struct {
		field wire.Field
		value string
		equal bool
	}
	var required []requirement
	exact := map[string]string{}
	for _, r := range byField.Requirements() {
		field, ok := k.Field(r.Field)
		if !ok {
			return nil, nil, apierr.BadField("fieldSelector", "%s cannot be selected by %q; selectable are %s", k.Plural, r.Field, strings.Join(k.SelectableFields(), ", "))
		}
		equal := r.Operator != selection.NotEquals
		if equal {
			exact[r.Field] = r.Value
		}
		required = append(required, requirement{field, r.Value, equal})
	}
	if byLabel.Empty() && len(required) == 0 {
		return nil, exact, nil
	}
	match := func(o *storage.Object) bool {
		for _, r := range required {
			if (o.Field(r.field) == r.value) != r.equal {
				return false
			}
		}
		return byLabel.Empty() || byLabel.Matches(labels.Set(o.Meta().GetLabels()))
	}
	return match, exact, nil
}

// nodeOf is the node that an object belongs to for authorization: a pod's.
func nodeOf(k *kind.Kind, o *storage.Object) string {
	if k.Name != "Pod" || k.Group != "" {
		return ""
	}
	field, _ := k.Field("spec.nodeName")
	return o.Field(field)
}
