// Package condition has what the conditions of all kinds share: a type, a status, and the time
// since which they have had it.
package condition

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// States of a condition.
const (
	True    = "True"
	False   = "False"
	Unknown = "Unknown"
)

// Condition is a condition of any kind, such as *corev1.PodCondition.
type Condition interface {
	// GetType returns the name, such as "Ready".
	GetType() string
	// GetStatus returns True, False or Unknown.
	GetStatus() string
	// GetLastTransitionTime returns when the status changed last.
	GetLastTransitionTime() *timestamppb.Timestamp
}

// Find returns the condition of a type, nil when there is none.
func Find[C Condition](all []C, typ string) C {
	for _, c := range all {
		if c.GetType() == typ {
			return c
		}
	}
	var none C
	return none
}

// Since returns the transition time of a condition that has this status now: that of the condition
// before while the status stays the same, and else now, to the second.
func Since[C Condition](before []C, typ, status string, now time.Time) *timestamppb.Timestamp {
	for _, c := range before {
		if c.GetType() == typ && c.GetStatus() == status && c.GetLastTransitionTime() != nil {
			return c.GetLastTransitionTime()
		}
	}
	return timestamppb.New(now.Truncate(time.Second))
}

// Others returns the conditions of other types than these. Controllers keep them: they belong to
// other controllers.
func Others[C Condition](all []C, types ...string) []C {
	var others []C
	for _, c := range all {
		if !slices.Contains(types, c.GetType()) {
			others = append(others, c)
		}
	}
	return others
}
