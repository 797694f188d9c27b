package events

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	eventsv1 "github.com/xebec-project/xebec/proto/xebec/events/v1"
)

// unset is the detail of errors on fields of the core group's form.
const unset = "needs to be unset"

var (
	// eventRules are stricter than those of the core group, which hold for the stored object as well.
	eventRules = rules.For[*eventsv1.Event]{
		Name: rules.NameIsSubdomain,
		Check: func(e *eventsv1.Event, c *rules.Checker) {
			names := core.EventNames{InvolvedObject: "regarding", ReportingComponent: "reportingController", Message: "note"}
			core.CheckEvent(coreEvent(e), names, c)
		},
		CheckNew:    checkNewEvent,
		CheckUpdate: checkEventUpdate,
	}
	eventColumns = columns()
	eventFields  = map[string][]protowire.Number{
		"reportingController":       {4},
		"reason":                    {7},
		"regarding.kind":            {8, 1},
		"regarding.namespace":       {8, 2},
		"regarding.name":            {8, 3},
		"regarding.uid":             {8, 4},
		"regarding.apiVersion":      {8, 5},
		"regarding.resourceVersion": {8, 6},
		"regarding.fieldPath":       {8, 7},
		"type":                      {11},
	}
)

// columns are those of the core group.
func columns() []scheme.Column {
	out := slices.Clone(core.EventKind.Columns)
	for i, c := range out {
		out[i].Value = func(o scheme.Object, now time.Time) string { return c.Value(coreEvent(o.(*eventsv1.Event)), now) }
		if c.Path == ".message" {
			out[i].Path = ".note"
		}
	}
	return out
}

func checkNewEvent(e *eventsv1.Event, c *rules.Checker) {
	checkSeries(e, c)
	if e.GetEventTime() == nil {
		c.Required(field.NewPath("eventTime"), "")
	}
	if e.GetType() != core.EventNormal && e.GetType() != core.EventWarning {
		c.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %s", e.GetType()))
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"deprecatedFirstTimestamp", e.GetDeprecatedFirstTimestamp() != nil},
		{"deprecatedLastTimestamp", e.GetDeprecatedLastTimestamp() != nil},
		{"deprecatedCount", e.GetDeprecatedCount() != 0},
		{"deprecatedSource", e.GetDeprecatedSource().GetComponent() != "" || e.GetDeprecatedSource().GetHost() != ""},
	} {
		if f.set {
			c.Invalid(field.NewPath(f.name), "", unset)
		}
	}
}

func checkSeries(e *eventsv1.Event, c *rules.Checker) {
	if e.GetSeries() == nil {
		return
	}
	p := field.NewPath("series")
	if e.GetSeries().GetCount() < 2 {
		c.Invalid(p.Child("count"), "", "should be at least 2")
	}
	if e.GetSeries().GetLastObservedTime() == nil {
		c.Required(p.Child("lastObservedTime"), "")
	}
}

// checkEventUpdate refuses changes of all but the metadata and the series.
func checkEventUpdate(now, old *eventsv1.Event, c *rules.Checker) {
	if !proto.Equal(now.GetSeries(), old.GetSeries()) {
		checkSeries(now, c)
	}
	n, o := now.ProtoReflect(), old.ProtoReflect()
	for _, f := range rules.FieldsOf(n) {
		switch f.Name() {
		case "metadata", "series":
			continue
		case "event_time":
			// Clients that write JSON cut it to microseconds.
			if micros(now.GetEventTime()).Equal(micros(old.GetEventTime())) {
				continue
			}
		}
		if has(n, f) != has(o, f) || has(n, f) && !n.Get(f).Equal(o.Get(f)) {
			c.Invalid(field.NewPath(f.JSONName()), shown(n, f), rules.Immutable)
		}
	}
}

// has reports whether a field is set. Of messages that Kubernetes does not tell from absent ones,
// an empty one is not.
func has(m protoreflect.Message, f protoreflect.FieldDescriptor) bool {
	switch f.Name() {
	case "regarding", "deprecated_source":
		return proto.Size(m.Get(f).Message().Interface()) > 0
	}
	return m.Has(f)
}

// shown is the value of a field in an error about it: that of a message is left out.
func shown(m protoreflect.Message, f protoreflect.FieldDescriptor) any {
	if f.Message() != nil {
		return field.OmitValueType{}
	}
	return m.Get(f).Interface()
}

func micros(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime().Truncate(time.Microsecond)
}

func toCore(o scheme.Object) (scheme.Object, error) {
	return coreEvent(proto.CloneOf(o.(*eventsv1.Event))), nil
}

// coreEvent returns an event in the form of the core group, which shares messages with it.
func coreEvent(e *eventsv1.Event) *corev1.Event {
	out := &corev1.Event{
		Metadata: e.GetMetadata(), InvolvedObject: e.GetRegarding(), Reason: e.GetReason(), Message: e.GetNote(),
		Source: e.GetDeprecatedSource(), FirstTimestamp: e.GetDeprecatedFirstTimestamp(), LastTimestamp: e.GetDeprecatedLastTimestamp(),
		Count: e.GetDeprecatedCount(), Type: e.GetType(), EventTime: e.GetEventTime(), Action: e.GetAction(), Related: e.GetRelated(),
		ReportingComponent: e.GetReportingController(), ReportingInstance: e.GetReportingInstance(),
	}
	if s := e.GetSeries(); s != nil {
		out.Series = &corev1.EventSeries{Count: s.GetCount(), LastObservedTime: s.GetLastObservedTime()}
	}
	return out
}

func fromCore(o scheme.Object) (scheme.Object, error) {
	e := proto.CloneOf(o.(*corev1.Event))
	out := &eventsv1.Event{
		Metadata: e.GetMetadata(), Regarding: e.GetInvolvedObject(), Reason: e.GetReason(), Note: e.GetMessage(),
		DeprecatedSource: e.GetSource(), DeprecatedFirstTimestamp: e.GetFirstTimestamp(), DeprecatedLastTimestamp: e.GetLastTimestamp(),
		DeprecatedCount: e.GetCount(), Type: e.GetType(), EventTime: e.GetEventTime(), Action: e.GetAction(), Related: e.GetRelated(),
		ReportingController: e.GetReportingComponent(), ReportingInstance: e.GetReportingInstance(),
	}
	if s := e.GetSeries(); s != nil {
		out.Series = &eventsv1.EventSeries{Count: s.GetCount(), LastObservedTime: s.GetLastObservedTime()}
	}
	return out, nil
}
