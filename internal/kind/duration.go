package kind

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	none    = "<none>"
	unknown = "<unknown>"

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
		return unknown
	}
	return HumanDuration(now.Sub(t.AsTime()))
}

func rfc3339(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// column adapts a function on one kind's message.
func column[T Object](name string, value func(T) string) Column {
	return Column{Name: name, Value: func(o Object, _ time.Time) string { return value(o.(T)) }}
}

// at states the field that a column shows.
func at(path string, c Column) Column {
	c.Path = path
	return c
}

// wide is a column that is shown only when asked for.
func wide[T Object](name string, value func(T) string) Column {
	c := column(name, value)
	c.Wide = true
	return c
}

// aged adapts a function that also needs the time.
func aged[T Object](name string, value func(T, time.Time) string) Column {
	return Column{Name: name, Value: func(o Object, now time.Time) string { return value(o.(T), now) }}
}

// AgeColumn is the column that nearly every kind has.
var AgeColumn = Column{Name: "AGE", Value: func(o Object, now time.Time) string {
	return Age(o.GetMetadata().GetCreationTimestamp(), now)
}}

// orNone joins the values that are not empty; <none> when there are none.
func orNone(values ...string) string {
	var set []string
	for _, v := range values {
		if v != "" {
			set = append(set, v)
		}
	}
	if len(set) == 0 {
		return none
	}
	return strings.Join(set, ",")
}
