// Package events has the kinds of the group events.k8s.io.
package events

import (
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	eventsv1 "github.com/xebec-project/xebec/proto/xebec/events/v1"
)

// Kinds are the kinds of the group events.k8s.io.
var Kinds = []*scheme.Kind{
	{
		Group: "events.k8s.io", Version: "v1", Name: "Event", Plural: "events", Singular: "event", ShortNames: []string{"ev"},
		Namespaced: true,
		New:        func() scheme.Object { return new(eventsv1.Event) },
		Columns:    eventColumns, Fields: eventFields, Rules: eventRules,
		HideName:   true,
		Conversion: &scheme.Conversion{Stored: core.EventKind, ToStored: toCore, FromStored: fromCore},
	},
}
