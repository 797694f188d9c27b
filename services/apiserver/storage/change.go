package storage

import (
	"sync/atomic"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// change is one change of one object, shared by all watchers.
type change struct {
	revision int64
	object   *Object // after the change; nil when it was deleted
	previous *Object // before it; nil when it was created

	gone atomic.Pointer[Object] // previous as a tombstone; made when first needed
}

// key names the object that changed.
func (c *change) key() *Key {
	if c.object != nil {
		return &c.object.Key
	}
	return &c.previous.Key
}

// size is roughly the memory that the change keeps alive.
func (c *change) size() int {
	const fixed = 320 // the structs
	if c.object != nil {
		return fixed + len(c.object.frame)
	}
	return fixed + len(c.previous.frame)
}

// tombstone is the object's last state before the change, at the change's revision.
func (c *change) tombstone() *Object {
	if o := c.gone.Load(); o != nil {
		return o
	}
	o := c.previous.tombstone(c.revision)
	if !c.gone.CompareAndSwap(nil, o) {
		return c.gone.Load()
	}
	return o
}

// event is the change as a watcher that selects by match sees it; false when it does not see it at
// all.
func (c *change) event(match Match) (Event, bool) {
	now := c.object != nil && match.ok(c.object)
	before := c.previous != nil && match.ok(c.previous)
	switch {
	case now && before:
		return Event{Type: apiv1.EventType_EVENT_TYPE_MODIFIED, Object: c.object, Revision: c.revision}, true
	case now:
		return Event{Type: apiv1.EventType_EVENT_TYPE_ADDED, Object: c.object, Revision: c.revision}, true
	case before:
		return Event{Type: apiv1.EventType_EVENT_TYPE_DELETED, Object: c.tombstone(), Revision: c.revision}, true
	}
	return Event{}, false
}
