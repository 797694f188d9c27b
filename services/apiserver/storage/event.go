package storage

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Event is one event of a watch.
type Event struct {
	// Type says what happened.
	Type apiv1.EventType
	// Object is the object after the change; for a deletion its last state, with the deletion's
	// revision. It is nil in a bookmark.
	Object *Object
	// Revision is the revision of the change, from which the watch may resume. In the initial state it
	// is the one at which the object last changed: resume only from the bookmark that ends the initial
	// state, or later.
	Revision int64
	// InitialStateEnd is set on the bookmark that ends the initial state.
	InitialStateEnd bool
}

// Frame is the event as an encoded WatchResponse. All watchers that see the same object with the
// same type share it: it must not be modified.
func (e Event) Frame() []byte {
	if e.Object != nil {
		switch frame := e.Object.frame; e.Type {
		case apiv1.EventType_EVENT_TYPE_ADDED:
			return frame[typeFieldLen:]
		default:
			end := len(frame) - typeFieldLen
			return frame[:end:end]
		}
	}
	b := make([]byte, 0, 2*typeFieldLen+2+maxRevisionDigits)
	b = appendType(b, e.Type)
	b = protowire.AppendTag(b, responseVersion, protowire.BytesType)
	b = protowire.AppendString(b, strconv.FormatInt(e.Revision, 10))
	if e.InitialStateEnd {
		b = protowire.AppendTag(b, responseInitialEnd, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	return b
}

func bookmark(revision int64, initialEnd bool) Event {
	return Event{Type: apiv1.EventType_EVENT_TYPE_BOOKMARK, Revision: revision, InitialStateEnd: initialEnd}
}
