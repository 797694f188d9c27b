package core

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Types of event.
const (
	EventNormal  = "Normal"
	EventWarning = "Warning"
)

var (
	eventRules = rules.For[*corev1.Event]{
		Name: rules.NameIsSubdomain,
		Check: func(e *corev1.Event, c *rules.Checker) {
			CheckEvent(e, EventNames{InvolvedObject: "involvedObject", ReportingComponent: "reportingComponent", Message: "message"}, c)
		},
	}
	eventColumns = []scheme.Column{
		column.Aged("LAST SEEN", func(e *corev1.Event, now time.Time) string { return column.Age(EventLastSeen(e), now) }),
		column.At(".type", column.New("TYPE", (*corev1.Event).GetType)),
		column.At(".reason", column.New("REASON", (*corev1.Event).GetReason)),
		column.New("OBJECT", eventObject),
		column.Wide("SUBOBJECT", func(e *corev1.Event) string { return e.GetInvolvedObject().GetFieldPath() }),
		column.Wide("SOURCE", eventSource),
		column.At(".message", column.New("MESSAGE", func(e *corev1.Event) string { return strings.TrimSpace(e.GetMessage()) })),
		{Name: "FIRST SEEN", Wide: true, Value: func(o scheme.Object, now time.Time) string {
			return column.Age(eventFirstSeen(o.(*corev1.Event)), now)
		}},
		column.Wide("COUNT", func(e *corev1.Event) string { return strconv.Itoa(int(EventCount(e))) }),
	}
	eventFields = map[string][]protowire.Number{
		"involvedObject.kind":            {2, 1},
		"involvedObject.namespace":       {2, 2},
		"involvedObject.name":            {2, 3},
		"involvedObject.uid":             {2, 4},
		"involvedObject.apiVersion":      {2, 5},
		"involvedObject.resourceVersion": {2, 6},
		"involvedObject.fieldPath":       {2, 7},
		"reason":                         {3},
		"source.component":               {5, 1},
		"type":                           {9},
		"reportingComponent":             {14},
	}
)

// EventKind is the kind of events. They are stored in this form, and served in that of
// events.k8s.io too.
var EventKind = &scheme.Kind{
	Version: "v1", Name: "Event", Plural: "events", Singular: "event", ShortNames: []string{"ev"},
	Namespaced: true,
	New:        func() scheme.Object { return new(corev1.Event) },
	Columns:    eventColumns, Fields: eventFields, Rules: eventRules,
	HideName: true,
}

// EventLastSeen returns the time of the last occurrence, nil when the event has none.
func EventLastSeen(e *corev1.Event) *timestamppb.Timestamp {
	switch {
	case e.GetSeries().GetLastObservedTime() != nil:
		return e.GetSeries().GetLastObservedTime()
	case e.GetLastTimestamp() != nil:
		return e.GetLastTimestamp()
	case e.GetEventTime() != nil:
		return e.GetEventTime()
	}
	return e.GetFirstTimestamp()
}

func eventFirstSeen(e *corev1.Event) *timestamppb.Timestamp {
	if e.GetFirstTimestamp() != nil {
		return e.GetFirstTimestamp()
	}
	if e.GetEventTime() != nil {
		return e.GetEventTime()
	}
	return e.GetMetadata().GetCreationTimestamp()
}

// EventCount returns the number of occurrences, at least 1.
func EventCount(e *corev1.Event) int32 {
	return max(1, e.GetCount(), e.GetSeries().GetCount())
}

func eventObject(e *corev1.Event) string {
	o := e.GetInvolvedObject()
	return strings.ToLower(o.GetKind()) + "/" + o.GetName()
}

func eventSource(e *corev1.Event) string {
	component, host := e.GetSource().GetComponent(), e.GetSource().GetHost()
	if component == "" {
		component, host = e.GetReportingComponent(), e.GetReportingInstance()
	}
	if host == "" {
		return component
	}
	return component + ", " + host
}

// Limits of the texts of an event with an eventTime.
const (
	maxEventWord    = 128
	maxEventMessage = 1024
)

// EventNames are the names of the fields that the groups that serve events name differently.
type EventNames struct{ InvolvedObject, ReportingComponent, Message string }

// CheckEvent checks the rules that events of both groups have, and names fields as in one of them.
// Events of the older form, without an eventTime, have few rules, as in Kubernetes.
func CheckEvent(e *corev1.Event, names EventNames, c *rules.Checker) {
	involved := field.NewPath(names.InvolvedObject, "namespace")
	about, namespace := e.GetInvolvedObject().GetNamespace(), e.GetMetadata().GetNamespace()
	if e.GetEventTime() == nil {
		if about != namespace && (about != "" || namespace != "default") {
			c.Invalid(involved, about, "does not match event.namespace")
		}
		return
	}
	if about == "" && namespace != "default" && namespace != "kube-system" {
		c.Invalid(involved, about, "does not match event.namespace")
	}
	component := field.NewPath(names.ReportingComponent)
	if e.GetReportingComponent() == "" {
		c.Required(component, "")
	}
	c.Each(component, e.GetReportingComponent(), validation.IsQualifiedName(e.GetReportingComponent()))
	word := func(name, value string) {
		switch {
		case value == "":
			c.Required(field.NewPath(name), "")
		case len(value) > maxEventWord:
			c.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %d characters", maxEventWord))
		}
	}
	word("reportingInstance", e.GetReportingInstance())
	word("action", e.GetAction())
	word("reason", e.GetReason())
	if len(e.GetMessage()) > maxEventMessage {
		c.Invalid(field.NewPath(names.Message), "", fmt.Sprintf("can have at most %d characters", maxEventMessage))
	}
}
