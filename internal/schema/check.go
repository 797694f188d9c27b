package schema

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// scalarCheck is the part of a field's rules that applies to a text or a number.
type scalarCheck struct {
	// any reports whether there is any such rule.
	any       bool
	text      textFormat
	key       textFormat
	number    func(int64) []string
	min, max  *int64
	rangeText string
}

func scalarCheckOf(r *metav1.FieldRules) scalarCheck {
	if r == nil {
		return scalarCheck{}
	}
	c := scalarCheck{
		text: textFormats[r.GetFormat()], key: textFormats[r.GetKeyFormat()], number: numberFormats[r.GetFormat()],
		min: r.Min, max: r.Max,
	}
	c.any = r.GetFormat() != metav1.Format_FORMAT_UNSPECIFIED || r.Min != nil || r.Max != nil || r.GetMaxLength() > 0 ||
		len(r.GetEnum()) > 0 || len(r.GetRefusedValues()) > 0
	switch {
	case r.GetRangeDetail() != "":
		c.rangeText = r.GetRangeDetail()
	case r.Min != nil && r.Max != nil:
		c.rangeText = validation.InclusiveRangeError(int(r.GetMin()), int(r.GetMax()))
	case r.Min != nil:
		c.rangeText = fmt.Sprintf("must be greater than or equal to %d", r.GetMin())
	case r.Max != nil:
		c.rangeText = fmt.Sprintf("must be less than or equal to %d", r.GetMax())
	}
	return c
}

// checkText checks a text that is set.
func (w *walker) checkText(s *step, text string) {
	r := s.rules
	if len(r.GetRefusedValues()) > 0 && slices.Contains(r.GetRefusedValues(), text) {
		w.add(&field.Error{Type: field.ErrorTypeNotSupported, Field: w.at.path().String(), BadValue: text, Detail: r.GetRefusedValuesDetail()})
		return
	}
	if len(r.GetEnum()) > 0 && !slices.Contains(r.GetEnum(), text) {
		w.add(field.NotSupported(w.at.path(), text, r.GetEnum()))
		return
	}
	if n := int(r.GetMaxLength()); n > 0 && len(text) > n {
		w.add(field.TooLong(w.at.path(), "", n))
	}
	if s.check.text != nil {
		w.checkFormat(s.check.text, text)
	}
}

func (w *walker) checkFormat(f textFormat, text string) {
	for _, problem := range f(text) {
		w.add(field.Invalid(w.at.path(), text, problem))
	}
}

// checkNumber checks a number that is set, or that has no presence of its own.
func (w *walker) checkNumber(s *step, n int64) {
	c := &s.check
	if c.min != nil && n < *c.min || c.max != nil && n > *c.max {
		w.add(field.Invalid(w.at.path(), n, c.rangeText))
		return
	}
	if c.number != nil && (n != 0 || s.field.HasPresence()) {
		for _, problem := range c.number(n) {
			w.add(field.Invalid(w.at.path(), n, problem))
		}
	}
}
