package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
	"k8s.io/utils/third_party/forked/golang/btree"

	"github.com/xebec-project/xebec/internal/wire"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// WatchOptions selects what to watch.
type WatchOptions struct {
	// Group and Kind name the kind.
	Group, Kind string
	// Namespace is empty for all namespaces, and for kinds that have none.
	Namespace string
	// Match selects among them. An object that comes to match is reported as ADDED, one that ceases to
	// as DELETED.
	Match Match
	// Exact, when not nil, is a value of a field that every object has which Match selects: then the
	// watch costs nothing when others change.
	Exact *Exact
	// FromRevision is the revision after which events start; 0 for the state first.
	FromRevision int64
	// Started, when not nil, is called once the state, or the changes since FromRevision, have been
	// sent: from then on the watch costs no more than what changes.
	Started func()
}

// FieldName is the field of every kind that, with the namespace, names one object.
const FieldName = "metadata.name"

// Exact is the value of a field.
type Exact struct {
	// Name names the field among those of the kind, such as "spec.nodeName".
	Name string
	// Field reads it.
	Field wire.Field
	// Value is what Field reads.
	Value string
}

// Watch sends the events of one kind, in order, until ctx ends, send fails, or the watch can't go
// on; it always returns an error. With no FromRevision it sends the current state as ADDED events
// and a bookmark with InitialStateEnd first. It sends a bookmark now and then when there is nothing
// else.
//
// ErrCompacted: the changes since FromRevision are no longer known. ErrSlowWatcher: send took so
// long that the watch's buffer overflowed. ErrUnknownKind: the kind is not or no longer registered.
// The slice passed to send is valid only during the call.
func (s *Store) Watch(ctx context.Context, opts WatchOptions, send func([]Event) error) error {
	k, err := s.kind(ctx, opts.Group, opts.Kind)
	if err != nil {
		return err
	}
	// The state must be current when it is requested; a watch that resumes waits only if the store
	// that served it before was ahead of this one.
	if opts.FromRevision == 0 || opts.FromRevision > s.cache.sent.Load() {
		if err := s.current(ctx); err != nil {
			return fmt.Errorf("watch %s: %w", kindPrefix(opts.Group, opts.Kind), err)
		}
	}
	w := newWatcher(opts, s.cfg.WatchChanges, s.cfg.WatchBytes)
	start, err := s.cache.register(k, w, opts.FromRevision)
	if err != nil {
		return fmt.Errorf("watch %s: %w", kindPrefix(opts.Group, opts.Kind), err)
	}
	defer k.unregister(w)

	switch {
	case opts.FromRevision == 0:
		err = start.sendState(ctx, opts, send)
	case opts.FromRevision < start.floor:
		if err = s.sendPast(ctx, opts, start.floor, send); err == nil {
			err = sendChanges(start.recent, opts, send)
		}
	default:
		err = sendChanges(start.recent, opts, send)
	}
	if err != nil {
		return err
	}
	if opts.Started != nil {
		opts.Started()
	}
	return s.sendLive(ctx, w, start.revision, send)
}

// watchStart is what a watcher receives before the contents of its buffer.
type watchStart struct {
	revision int64                 // the buffer holds the changes after it
	state    *btree.BTree[*Object] // at revision, when the state was requested
	recent   []*change             // after floor or the revision to resume from, whichever is later
	floor    int64                 // older changes are known to etcd alone
}

// register adds a watcher to a kind. From the returned revision on its buffer gets all changes.
func (c *cache) register(k *kindCache, w *watcher, from int64) (watchStart, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	start := watchStart{revision: c.revision, floor: k.history.floor}
	switch {
	case c.revision == 0:
		return start, fmt.Errorf("%w: the cache is not filled yet", ErrUnavailable)
	case from > c.revision:
		return start, ErrFutureRevision
	case from == 0:
		start.state = k.snapshot()
	default:
		start.recent = k.history.since(max(from, start.floor))
	}
	w.after = c.revision
	k.watchMu.Lock()
	defer k.watchMu.Unlock()
	if k.ended != nil {
		return start, k.ended
	}
	k.watchers.add(w)
	return start, nil
}

func (k *kindCache) unregister(w *watcher) {
	k.watchMu.Lock()
	k.watchers.remove(w)
	k.watchMu.Unlock()
}

// deliver puts a change into the buffers of the watchers that it concerns. Only the reflector calls
// it.
func (k *kindCache) deliver(c *change) {
	k.watchMu.Lock()
	defer k.watchMu.Unlock()
	for w := range k.watchers.concerned(c) {
		if e, ok := w.sees(c); ok {
			w.push(e)
		}
	}
}

// sendChunk is how many events of the initial state are sent at a time.
const sendChunk = 256

// sendState sends the initial state and the bookmark that ends it.
func (start watchStart) sendState(ctx context.Context, opts WatchOptions, send func([]Event) error) error {
	var err error
	events := make([]Event, 0, min(start.state.Len()+1, sendChunk))
	visited := 0
	visit := func(o *Object) bool {
		if visited++; visited%visitsPerCheck == 0 {
			if err = ctx.Err(); err != nil {
				return false
			}
		}
		if opts.Namespace != "" && o.Key.Namespace != opts.Namespace {
			return false
		}
		if !opts.Match.ok(o) {
			return true
		}
		events = append(events, Event{Type: apiv1.EventType_EVENT_TYPE_ADDED, Object: o, Revision: o.Revision})
		if len(events) == sendChunk {
			err = send(events)
			events = events[:0]
		}
		return err == nil
	}
	if key, ok := start.only(opts); ok {
		if o, exists := start.state.Get(&Object{Key: key}); exists {
			visit(o)
		}
	} else if opts.Namespace != "" {
		start.state.AscendGreaterOrEqual(&Object{Key: Key{Namespace: opts.Namespace}}, visit)
	} else {
		start.state.Ascend(visit)
	}
	if err != nil {
		return err
	}
	return send(append(events, bookmark(start.revision, true)))
}

// only returns the key of the only object that a watch can be about, false when there may be
// several.
func (start watchStart) only(opts WatchOptions) (Key, bool) {
	if opts.Exact == nil || opts.Exact.Name != FieldName {
		return Key{}, false
	}
	// A kind either has namespaces or not.
	first, ok := start.state.Min()
	return Key{Namespace: opts.Namespace, Name: opts.Exact.Value}, ok && (opts.Namespace == "") == (first.Key.Namespace == "")
}

// sendChanges sends what a watcher sees of some changes.
func sendChanges(changes []*change, opts WatchOptions, send func([]Event) error) error {
	var events []Event
	for _, c := range changes {
		if opts.Namespace != "" && c.key().Namespace != opts.Namespace {
			continue
		}
		if e, ok := c.event(opts.Match); ok {
			events = append(events, e)
		}
	}
	if len(events) == 0 {
		return nil
	}
	return send(events)
}

// sendPast sends the changes after opts.FromRevision up to and with the revision end, which the
// history no longer holds, from etcd.
func (s *Store) sendPast(ctx context.Context, opts WatchOptions, end int64, send func([]Event) error) error {
	// A stream of its own: progress notifications are per stream.
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, streamKey, "past"))
	defer cancel()
	watching := clientv3.WithRequireLeader(ctx)
	prefix := listPrefix(opts.Group, opts.Kind, opts.Namespace)
	responses := s.cli.Watch(watching, prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithRev(opts.FromRevision+1), clientv3.WithFragment(), clientv3.WithCreatedNotify())
	deadline := time.NewTimer(s.cfg.ReadTimeout)
	defer deadline.Stop()
	ask := time.NewTicker(progressInterval)
	defer ask.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("%w: etcd did not report the changes since revision %d in time", ErrUnavailable, opts.FromRevision)
		case <-ask.C:
			// Answered once all events have been sent.
			if err := s.requestProgress(watching); err != nil {
				return err
			}
		case resp, ok := <-responses:
			if !ok {
				return fmt.Errorf("%w: etcd ended the watch", ErrUnavailable)
			}
			if err := resp.Err(); err != nil {
				return readError(err)
			}
			if resp.Created {
				if err := s.requestProgress(watching); err != nil {
					return err
				}
				continue
			}
			done := resp.IsProgressNotify() && resp.Header.Revision >= end
			var changes []*change
			for _, e := range resp.Events {
				if e.Kv.ModRevision > end {
					done = true
					break
				}
				c, err := s.pastChange(e)
				if err != nil {
					return err
				}
				changes = append(changes, c)
			}
			if err := sendChanges(changes, opts, send); err != nil {
				return err
			}
			if done {
				return nil
			}
		}
	}
}

// pastChange turns an event of etcd's, which must carry the previous value, into a change.
func (s *Store) pastChange(e *clientv3.Event) (*change, error) {
	c := &change{revision: e.Kv.ModRevision}
	var err error
	if e.PrevKv != nil {
		if c.previous, err = s.decode(e.PrevKv); err != nil {
			return nil, err
		}
	}
	if c.previous == nil && !e.IsCreate() {
		// What was before has been compacted, though the change itself has not.
		return nil, ErrCompacted
	}
	if e.Type == clientv3.EventTypePut {
		if c.object, err = s.decode(e.Kv); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// spareMost is the capacity in events beyond which a drained buffer is not used again.
const spareMost = 512

// sendLive sends the events in the watcher's buffer, and bookmarks when there are none.
func (s *Store) sendLive(ctx context.Context, w *watcher, revision int64, send func([]Event) error) error {
	// Spread, so that a thousand idle watches do not wake at once.
	interval := func() time.Duration {
		return s.cfg.BookmarkInterval*3/4 + rand.N(s.cfg.BookmarkInterval/4+1)
	}
	timer := time.NewTimer(interval())
	defer timer.Stop()
	var events []Event
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.filled:
			var err error
			if events, err = w.drain(events); err != nil {
				return err
			}
			if len(events) == 0 {
				continue
			}
			if err := send(events); err != nil {
				return err
			}
			revision = events[len(events)-1].Revision
			clear(events)
			if cap(events) > spareMost {
				events = nil
			}
		case <-timer.C:
			// Read before the buffer is looked at: what was sent to it by then has been drained, or is in it
			// now.
			sent := s.cache.sent.Load()
			if !w.empty() {
				break
			}
			revision = max(revision, sent)
			if err := send([]Event{bookmark(revision, false)}); err != nil {
				return err
			}
		}
		timer.Reset(interval())
	}
}

// watcher is the buffer between the reflector and one watch.
type watcher struct {
	namespace string
	match     Match
	exact     *Exact
	after     int64 // only changes after this revision are for the buffer

	filled chan struct{} // holds one token when the buffer is not empty or the watch is over

	mu     sync.Mutex
	events []Event
	bytes  int
	err    error // why the watch is over, nil while it is not

	maxEvents, maxBytes int
}

func newWatcher(opts WatchOptions, maxEvents, maxBytes int) *watcher {
	return &watcher{
		namespace: opts.Namespace, match: opts.Match, exact: opts.Exact, filled: make(chan struct{}, 1),
		maxEvents: maxEvents, maxBytes: maxBytes,
	}
}

// sees returns the event that a change is to this watcher, false when it does not concern it.
func (w *watcher) sees(c *change) (Event, bool) {
	if c.revision <= w.after || w.namespace != "" && c.key().Namespace != w.namespace {
		return Event{}, false
	}
	return c.event(w.match)
}

// push adds an event to the buffer. It never blocks.
func (w *watcher) push(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return
	case len(w.events) >= w.maxEvents || w.bytes >= w.maxBytes:
		w.err, w.events = ErrSlowWatcher, nil
	default:
		w.events = append(w.events, e)
		w.bytes += len(e.Object.frame)
		if len(w.events) > 1 {
			return // the token is there, or its receiver will find this event
		}
	}
	w.wake()
}

// fail ends the watch with an error. What is in the buffer is not sent.
func (w *watcher) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err, w.events = err, nil
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.filled <- struct{}{}:
	default:
	}
}

// drain takes what the buffer holds and leaves it the spare slice.
func (w *watcher) drain(spare []Event) ([]Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	events := w.events
	w.events, w.bytes = spare[:0], 0
	return events, nil
}

func (w *watcher) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.events) == 0 && w.err == nil
}
