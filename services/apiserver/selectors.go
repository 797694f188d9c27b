package apiserver

import (
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/internal/wire"
	"github.com/xebec-project/xebec/services/apiserver/pipeline"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Bounds of a selector: its length in bytes, and the number of its conditions, which are all
// evaluated for every object.
const (
	maxSelectorBytes = 64 << 10
	maxRequirements  = 1000
)

// requirement is one condition of a field selector.
type requirement struct {
	name  string // such as "spec.nodeName"
	field wire.Field
	value string
	equal bool
}

// parseFieldSelector returns the conditions of a field selector, and the values that it demands of
// fields.
func parseFieldSelector(k *scheme.Kind, text string) ([]requirement, map[string]string, error) {
	if err := checkSelector("fieldSelector", text); err != nil {
		return nil, nil, err
	}
	parsed, err := fields.ParseSelector(text)
	if err != nil {
		return nil, nil, apierr.BadField("fieldSelector", "%v", err)
	}
	if n := len(parsed.Requirements()); n > maxRequirements {
		return nil, nil, tooManyRequirements("fieldSelector", n)
	}
	var required []requirement
	exact := map[string]string{}
	for _, r := range parsed.Requirements() {
		field, ok := k.Field(r.Field)
		if !ok {
			return nil, nil, apierr.BadField("fieldSelector", "%s cannot be selected by %q; the selectable fields are %s",
				k.Plural, pipeline.Shortened(r.Field), strings.Join(k.SelectableFields(), ", "))
		}
		equal := r.Operator != selection.NotEquals
		if equal {
			exact[r.Field] = r.Value
		}
		required = append(required, requirement{r.Field, field, r.Value, equal})
	}
	return required, exact, nil
}

func parseLabelSelector(text string) (labels.Selector, error) {
	if err := checkSelector("labelSelector", text); err != nil {
		return nil, err
	}
	parsed, err := labels.Parse(text)
	if err != nil {
		return nil, apierr.BadField("labelSelector", "%v", err)
	}
	if all, _ := parsed.Requirements(); len(all) > maxRequirements {
		return nil, tooManyRequirements("labelSelector", len(all))
	}
	return parsed, nil
}

func checkSelector(name, text string) error {
	if len(text) > maxSelectorBytes {
		return apierr.BadField(name, "must not be longer than %d bytes, has %d: select by fewer values, or make several calls",
			maxSelectorBytes, len(text))
	}
	return nil
}

func tooManyRequirements(name string, n int) error {
	return apierr.BadField(name, "must not have more than %d conditions, has %d", maxRequirements, n)
}

// exactly returns a value that all conditions together demand of a field of stored objects, nil
// when they demand none. A name is preferred: it selects one object of a namespace.
func exactly(k *scheme.Kind, required []requirement) *storage.Exact {
	var out *storage.Exact
	for _, r := range required {
		if r.equal && r.inStored(k) && (out == nil || r.name == storage.FieldName) {
			out = &storage.Exact{Name: r.name, Field: r.field, Value: r.value}
		}
	}
	return out
}

// inStored reports whether the field is the same in stored objects as in objects of a version:
// conversions keep the metadata.
func (r requirement) inStored(k *scheme.Kind) bool {
	return k.Conversion == nil || strings.HasPrefix(r.name, "metadata.")
}

// matchAll returns the filter for stored objects that meet all conditions in a version of the kind,
// nil when there are none. An object that cannot be converted to the version meets none.
func matchAll(k *scheme.Kind, required []requirement, byLabel labels.Selector) storage.Match {
	if byLabel.Empty() && len(required) == 0 {
		return nil
	}
	var stored, converted []requirement
	for _, r := range required {
		if r.inStored(k) {
			stored = append(stored, r)
		} else {
			converted = append(converted, r)
		}
	}
	return func(o *storage.Object) bool {
		for _, r := range stored {
			if (o.Field(r.field) == r.value) != r.equal {
				return false
			}
		}
		if !byLabel.Empty() && !byLabel.Matches(labels.Set(o.Meta().GetLabels())) {
			return false
		}
		return len(converted) == 0 || matchConverted(k, o, converted)
	}
}

// matchConverted reports whether an object meets conditions on fields of the version k.
func matchConverted(k *scheme.Kind, o *storage.Object, required []requirement) bool {
	shown, err := pipeline.EncodeStored(k, o)
	if err != nil {
		return false
	}
	for _, r := range required {
		if text, err := r.field.Text(shown.GetValue()); err != nil || (text == r.value) != r.equal {
			return false
		}
	}
	return true
}
