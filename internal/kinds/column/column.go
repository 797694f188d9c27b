// Package column has the columns of tables: constructors, ages and other texts that people read.
package column

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// None stands for a value that is not set.
	None = "<none>"
	// Unknown stands for a value that should be set.
	Unknown = "<unknown>"

	day  = 24 * time.Hour
	year = 365 * day
)

// HumanDuration formats a duration as tables show ages: with two units at most, which are coarser
// for longer durations: 45s, 5m30s, 3h12m, 5d3h, 2y40d. Negative durations of up to two seconds,
// which clocks that differ cause, read 0s; longer ones read <invalid>.
func HumanDuration(d time.Duration) string {
	switch {
	case d <= -2*time.Second:
		return "<invalid>"
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return units(d, time.Second, "s", 0, "")
	case d < 10*time.Minute:
		return units(d, time.Minute, "m", time.Second, "s")
	case d < 3*time.Hour:
		return units(d, time.Minute, "m", 0, "")
	case d < 8*time.Hour:
		return units(d, time.Hour, "h", time.Minute, "m")
	case d < 2*day:
		return units(d, time.Hour, "h", 0, "")
	case d < 8*day:
		return units(d, day, "d", time.Hour, "h")
	case d < 2*year:
		return units(d, day, "d", 0, "")
	case d < 8*year:
		return units(d, year, "y", day, "d")
	}
	return units(d, year, "y", 0, "")
}

// units formats d in whole big units and the remainder in small units, unless there is no small
// unit or the remainder is 0.
func units(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	s := strconv.FormatInt(int64(d/big), 10) + bigName
	if small == 0 || d%big/small == 0 {
		return s
	}
	return s + strconv.FormatInt(int64(d%big/small), 10) + smallName
}

// Age returns the time since t as tables show it; <unknown> when t is not set.
func Age(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil || t.AsTime().IsZero() {
		return Unknown
	}
	return HumanDuration(now.Sub(t.AsTime()))
}

// New adapts a function on one kind's message.
func New[T scheme.Object](name string, value func(T) string) scheme.Column {
	return scheme.Column{Name: name, Value: func(o scheme.Object, _ time.Time) string { return value(o.(T)) }}
}

// At states the field that a column shows.
func At(path string, c scheme.Column) scheme.Column {
	c.Path = path
	return c
}

// Wide is a column that is shown only when asked for.
func Wide[T scheme.Object](name string, value func(T) string) scheme.Column {
	c := New(name, value)
	c.Wide = true
	return c
}

// Aged adapts a function that also needs the time.
func Aged[T scheme.Object](name string, value func(T, time.Time) string) scheme.Column {
	return scheme.Column{Name: name, Value: func(o scheme.Object, now time.Time) string { return value(o.(T), now) }}
}

// AgeColumn is the column that nearly every kind has.
var AgeColumn = scheme.Column{Name: "AGE", Value: func(o scheme.Object, now time.Time) string {
	return Age(o.GetMetadata().GetCreationTimestamp(), now)
}}

// OrNone joins the values that are not empty; <none> when there are none.
func OrNone(values ...string) string {
	var set []string
	for _, v := range values {
		if v != "" {
			set = append(set, v)
		}
	}
	if len(set) == 0 {
		return None
	}
	return strings.Join(set, ",")
}

// FormatLabels writes labels as key=value pairs in a fixed order; <none> when there are none.
func FormatLabels(m map[string]string) string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, key+"="+m[key])
	}
	return OrNone(out...)
}

// FormatLabelSelector formats a selector in the syntax of -l; <none> for one that is not set, empty
// or invalid.
func FormatLabelSelector(s *metav1.LabelSelector) string {
	sel, err := object.LabelSelector(s)
	if err != nil || sel.String() == "" {
		return None
	}
	return sel.String()
}
