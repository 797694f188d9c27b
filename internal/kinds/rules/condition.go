package rules

import (
	"regexp"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Limits of the texts of conditions.
const (
	maxConditionReason  = 1 << 10
	maxConditionMessage = 32 << 10
)

const conditionReason = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"

var (
	conditionReasonRegexp = regexp.MustCompile("^" + conditionReason + "$")
	conditionStatuses     = []string{"False", "True", "Unknown"}
)

// Conditions checks the conditions of a status: their types differ, and all are complete.
func (c *Checker) Conditions(p *field.Path, conditions []*metav1.Condition) {
	types := Names{}
	for i, condition := range conditions {
		at := p.Index(i)
		c.Unique(at.Child("type"), types, condition.GetType())
		c.Each(at.Child("type"), condition.GetType(), validation.IsQualifiedName(condition.GetType()))
		if !slices.Contains(conditionStatuses, condition.GetStatus()) {
			c.Add(field.NotSupported(at.Child("status"), condition.GetStatus(), conditionStatuses))
		}
		if condition.GetObservedGeneration() < 0 {
			c.Invalid(at.Child("observedGeneration"), condition.GetObservedGeneration(), "must be greater than or equal to zero")
		}
		if condition.GetLastTransitionTime() == nil {
			c.Required(at.Child("lastTransitionTime"), "")
		}
		c.conditionReason(at.Child("reason"), condition.GetReason())
		if len(condition.GetMessage()) > maxConditionMessage {
			c.Add(field.TooLong(at.Child("message"), "", maxConditionMessage))
		}
	}
}

func (c *Checker) conditionReason(p *field.Path, reason string) {
	if reason == "" {
		c.Required(p, "")
		return
	}
	if !conditionReasonRegexp.MatchString(reason) {
		c.Invalid(p, reason, validation.RegexError(
			"a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', "+
				"and must end with an alphanumeric character or '_'",
			conditionReason, "my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"))
	}
	if len(reason) > maxConditionReason {
		c.Add(field.TooLong(p, "", maxConditionReason))
	}
}
