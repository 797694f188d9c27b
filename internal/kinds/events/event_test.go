package events_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	eventsv1 "github.com/xebec-project/xebec/proto/xebec/events/v1"
)

type event = *eventsv1.Event

// base is an event as reporters write it.
func base() event {
	return &eventsv1.Event{
		Metadata: kindtest.Meta("web.1"), EventTime: timestamppb.New(kindtest.Now.Add(-time.Minute)),
		Regarding: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web"}, Action: "Binding", Reason: "Scheduled",
		Type: "Normal", Note: "on node-1", ReportingController: "example.com/scheduler", ReportingInstance: "master-1",
	}
}

func TestEvent(t *testing.T) {
	kindtest.Validate(t, base, []kindtest.Bad[event]{
		{Name: "other namespace", Edit: func(e event) { e.EventTime, e.Regarding.Namespace = nil, "shop" },
			Want: []string{`regarding.namespace: Invalid value: "shop": does not match event.namespace`}},
		{Name: "missing", Edit: func(e event) { e.Action, e.Reason, e.ReportingInstance = "", "", strings.Repeat("x", 129) },
			Want: []string{"action: Required", "reason: Required", "reportingInstance: Invalid value"}},
		{Name: "controller", Edit: func(e event) { e.ReportingController = "a b" }, Want: []string{"reportingController: Invalid value"}},
		{Name: "note", Edit: func(e event) { e.Note = strings.Repeat("x", 1025) }, Want: []string{`note: Invalid value: "": can have at most 1024`}},
	})
	for _, tt := range []kindtest.Bad[event]{
		{Name: "fine", Edit: func(event) {}},
		{Name: "time", Edit: func(e event) { e.EventTime = nil }, Want: []string{"eventTime: Required"}},
		{Name: "type", Edit: func(e event) { e.Type = "Loud" }, Want: []string{`type: Invalid value: "": has invalid value: Loud`}},
		{Name: "series", Edit: func(e event) { e.Series = &eventsv1.EventSeries{Count: 1} },
			Want: []string{`series.count: Invalid value: "": should be at least 2`, "series.lastObservedTime: Required"}},
		{Name: "older form", Edit: func(e event) {
			e.DeprecatedCount, e.DeprecatedSource = 1, &corev1.EventSource{Host: "node-1"}
			e.DeprecatedFirstTimestamp, e.DeprecatedLastTimestamp = e.EventTime, e.EventTime
		}, Want: []string{
			`deprecatedCount: Invalid value: "": needs to be unset`, "deprecatedFirstTimestamp: Invalid", "deprecatedLastTimestamp: Invalid", "deprecatedSource: Invalid",
		}},
	} {
		t.Run(tt.Name, func(t *testing.T) {
			e := base()
			tt.Edit(e)
			kindtest.Expect(t, kinds.Of(e).ValidateNew(e), tt.Want)
		})
	}
	kindtest.Update(t, base, []kindtest.Edit[event]{
		{Name: "series", Edit: func(e event) { e.Series = &eventsv1.EventSeries{Count: 2, LastObservedTime: e.EventTime} }},
		{Name: "short series", Edit: func(e event) { e.Series = &eventsv1.EventSeries{} }, Want: []string{"series.count: Invalid", "series.lastObservedTime: Required"}},
		{Name: "note", Edit: func(e event) { e.Note = "elsewhere" }, Want: []string{`note: Invalid value: "elsewhere": field is immutable`}},
		{Name: "nanoseconds", Edit: func(e event) { e.EventTime.Nanos += 7 }},
		{Name: "time", Edit: func(e event) { e.EventTime.Seconds++ }, Want: []string{"eventTime: Invalid value: field is immutable"}},
		{Name: "object", Edit: func(e event) { e.Regarding.Name = "db" }, Want: []string{"regarding: Invalid value: field is immutable"}},
	})
	kindtest.ExpectCells(t, base(), kindtest.Now, map[string]string{"LAST SEEN": "60s", "TYPE": "Normal", "OBJECT": "pod/web", "MESSAGE": "on node-1"})
}

// TestConversion takes an event that sets every field to the form of the core group and back.
func TestConversion(t *testing.T) {
	whole := base()
	whole.Series = &eventsv1.EventSeries{Count: 3, LastObservedTime: timestamppb.New(kindtest.Now)}
	whole.Related = &corev1.ObjectReference{Kind: "Node", Name: "node-1"}
	whole.DeprecatedCount, whole.DeprecatedSource = 3, &corev1.EventSource{Component: "scheduler", Host: "master-1"}
	whole.DeprecatedFirstTimestamp, whole.DeprecatedLastTimestamp = whole.EventTime, timestamppb.New(kindtest.Now)
	m := whole.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		if f := m.Descriptor().Fields().Get(i); !m.Has(f) {
			t.Errorf("the event has no %s", f.Name())
		}
	}
	k := kinds.Of(whole)
	stored, err := k.ToStored(whole)
	if err != nil {
		t.Fatal(err)
	}
	c := stored.(*corev1.Event)
	if c.GetMessage() != "on node-1" || c.GetInvolvedObject().GetName() != "web" || c.GetReportingComponent() != "example.com/scheduler" || c.GetCount() != 3 {
		t.Errorf("in the form of the core group: %v", c)
	}
	back, err := k.FromStored(stored)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(back, whole) {
		t.Errorf("there and back:\n%v, want\n%v", back, whole)
	}
}
