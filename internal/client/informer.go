package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// InformerOptions selects what an informer mirrors and how it keeps it. The zero value mirrors all
// objects of T.
type InformerOptions[T scheme.Object] struct {
	// Kind is required when T is kind.Object, and taken from T otherwise.
	Kind *scheme.Kind
	// Namespace is empty for all namespaces.
	Namespace     string
	LabelSelector string
	FieldSelector string
	// Indexers give each object's values in the named indexes that ByIndex reads. They must be pure:
	// the same object gives the same values.
	Indexers map[string]func(T) []string
	// Transform may change an object before it is stored, to drop fields without readers.
	Transform func(T)
	// Summary requests the summaries of pods that WatchRequest describes. Nodes may watch those of all
	// pods.
	Summary bool
	// MetadataOnly decodes nothing but the metadata: much cheaper than a Transform that drops the
	// rest.
	MetadataOnly bool
	// OnError receives the reason why a watch ended, before the informer tries again. It must not
	// block. May be nil.
	OnError func(error)
}

// Informer mirrors the objects of one kind in memory and tells of their changes. It starts with the
// state, follows the changes, resumes after a disconnect where it was, and lists again only when
// the server no longer knows the changes since.
//
// All methods may be called concurrently. The objects it returns are shared by all readers and must
// not be changed: use Clone.
type Informer[T scheme.Object] struct {
	client   *Client
	kind     *scheme.Kind
	opts     InformerOptions[T]
	store    *store[T]
	handlers []func(old, new T)
	states   []func()
	reached  []func(revision int64)
	synced   chan struct{}

	mu       sync.Mutex
	started  bool
	revision string
}

// NewInformer returns an informer that mirrors nothing until Run. It panics when T is no registered
// kind, or is kind.Object and o.Kind is nil: both are mistakes in the program.
func NewInformer[T scheme.Object](c *Client, o InformerOptions[T]) *Informer[T] {
	k := o.Kind
	if k == nil {
		var err error
		if k, err = kindFor[T](); err != nil {
			panic("client.NewInformer: " + err.Error())
		}
	}
	return &Informer[T]{client: c, kind: k, opts: o, store: newStore(o.Indexers), synced: make(chan struct{})}
}

// Kind returns the kind that is mirrored.
func (i *Informer[T]) Kind() *scheme.Kind { return i.kind }

// OnChange adds a handler, before Run. Handlers are called one after the other, from Run's
// goroutine, in the order of the changes, after the store has the change: a handler that reads the
// informer sees at least this change. An addition has the zero T as old, a removal as new. In an
// update both are the same object, with one uid: an object that was replaced under its name while
// the watch was interrupted is reported as a removal and an addition. A handler may be called for
// an update without a visible change, and must return quickly: it delays all later changes.
func (i *Informer[T]) OnChange(f func(old, new T)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.started {
		panic("client: Informer.OnChange after Run")
	}
	i.handlers = append(i.handlers, f)
}

// OnProgress adds a handler, before Run, that is called with a revision once the other handlers
// have received every change up to it, from the end of the initial state on. Changes of the same
// transaction may still follow. It is called from the same goroutine, and may receive the same
// revision again. After a restore of the cluster revisions go back.
func (i *Informer[T]) OnProgress(f func(revision int64)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.started {
		panic("client: Informer.OnProgress after Run")
	}
	i.reached = append(i.reached, f)
}

// OnState adds a function, before Run, that is called in Run's goroutine each time a whole state
// was read: at the start, and again when the server no longer knew the changes since, as after a
// restore of a backup. The store then has the state, complete up to Revision, and the handlers have
// received the changes. An object whose revision is older than one that a write of Revision or
// before returned has gone back in time.
func (i *Informer[T]) OnState(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.started {
		panic("client: Informer.OnState after Run")
	}
	i.states = append(i.states, f)
}

// Get returns the object of this name. The namespace is empty for kinds that have none.
func (i *Informer[T]) Get(namespace, name string) (T, bool) {
	return i.store.get(Key{namespace, name})
}

// List returns all objects in no particular order; the slice is the caller's.
func (i *Informer[T]) List() []T { return i.store.list() }

// Len returns the number of objects.
func (i *Informer[T]) Len() int { return i.store.len() }

// ByIndex returns the objects for which the named indexer gave value, in no particular order; the
// slice is the caller's.
func (i *Informer[T]) ByIndex(name, value string) []T { return i.store.byIndex(name, value) }

// Revision returns the revision of the latest change that the store has, empty before the initial
// state is whole. A handler that is called finds the revision of its change here. Of a transaction
// that changed several objects some may still be to come.
func (i *Informer[T]) Revision() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.revision
}

// HasSynced reports whether the initial state is whole and the handlers have seen it.
func (i *Informer[T]) HasSynced() bool {
	select {
	case <-i.synced:
		return true
	default:
		return false
	}
}

// WaitForSync returns when the initial state is whole and the handlers have seen it, or with ctx's
// error.
func (i *Informer[T]) WaitForSync(ctx context.Context) error {
	select {
	case <-i.synced:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the initial state of %s: %w", i.kind.Plural, context.Cause(ctx))
	}
}

// Run mirrors until ctx ends, and returns ctx's error; nothing else stops it. It may be called
// once.
func (i *Informer[T]) Run(ctx context.Context) error {
	i.mu.Lock()
	if i.started {
		i.mu.Unlock()
		return errors.New("client: Informer.Run called twice")
	}
	i.started = true
	i.mu.Unlock()

	r := Reflector{
		Kind: i.kind, OnError: i.opts.OnError, client: i.client, summary: i.opts.Summary,
		options: WatchOptions{
			Namespace: i.opts.Namespace, LabelSelector: i.opts.LabelSelector, FieldSelector: i.opts.FieldSelector,
		},
	}
	return r.Run(ctx, &storeSink[T]{Informer: i})
}

// storeSink writes the events of a reflector to the store of an informer, and calls its handlers.
type storeSink[T scheme.Object] struct {
	*Informer[T]
	// seen has the keys of the state that is being sent, nil otherwise: what is stored and not in it
	// is gone.
	seen map[Key]struct{}
}

// Begin implements Sink.
func (s *storeSink[T]) Begin() { s.seen = map[Key]struct{}{} }

// Handle implements Sink.
func (s *storeSink[T]) Handle(event *apiv1.WatchResponse) error { return s.handle(event, s.seen) }

// Reached implements Sink.
func (s *storeSink[T]) Reached(revision string, whole bool) {
	if whole {
		var zero T
		for _, k := range s.store.keysExcept(s.seen) {
			old, _ := s.store.remove(k)
			s.notify(old, zero)
		}
	}
	s.seen = nil
	s.advance(revision)
	s.progress(revision)
	if !whole {
		return
	}
	for _, f := range s.states {
		f()
	}
	if !s.HasSynced() {
		close(s.synced)
	}
}

func (i *Informer[T]) progress(revision string) {
	if len(i.reached) == 0 {
		return
	}
	n, err := strconv.ParseInt(revision, 10, 64)
	if err != nil {
		return // A change's is a number, or the stream had failed; a bookmark's that is none says nothing.
	}
	for _, f := range i.reached {
		f(n)
	}
}

func (i *Informer[T]) advance(revision string) {
	i.mu.Lock()
	i.revision = revision
	i.mu.Unlock()
}

func (i *Informer[T]) handle(resp *apiv1.WatchResponse, seen map[Key]struct{}) error {
	switch t := resp.GetType(); t {
	case apiv1.EventType_EVENT_TYPE_BOOKMARK:
		return nil
	case apiv1.EventType_EVENT_TYPE_ADDED, apiv1.EventType_EVENT_TYPE_MODIFIED:
		obj, err := i.decode(resp.GetObject())
		if err != nil {
			return err
		}
		k := KeyOf(obj)
		if seen != nil {
			seen[k] = struct{}{}
		}
		// A state or a revision that is sent again repeats what is known.
		if old, ok := i.store.get(k); ok && sameVersion(old, obj) {
			return nil
		}
		// The removal of the object that had this name before was missed, or belongs to a state that was
		// skipped.
		if old, ok := i.store.get(k); ok && !sameObject(old, obj) {
			var zero T
			i.store.remove(k)
			i.notify(old, zero)
		}
		old, _ := i.store.put(k, obj)
		if seen == nil {
			i.advance(resp.GetResourceVersion())
		}
		i.notify(old, obj)
		return nil
	case apiv1.EventType_EVENT_TYPE_DELETED:
		obj, err := i.decode(resp.GetObject())
		if err != nil {
			return err
		}
		k := KeyOf(obj)
		delete(seen, k)
		old, existed := i.store.remove(k)
		if !existed {
			return nil
		}
		if seen == nil {
			i.advance(resp.GetResourceVersion())
		}
		// The handlers get the last state, which may be newer than what was stored, but only of the
		// object that they know.
		if sameObject(old, obj) {
			old = obj
		}
		var zero T
		i.notify(old, zero)
		return nil
	default:
		return fmt.Errorf("the server sent an event of unknown type %v", t)
	}
}

func sameObject(a, b scheme.Object) bool { return a.GetMetadata().GetUid() == b.GetMetadata().GetUid() }

func sameVersion(a, b scheme.Object) bool {
	return a.GetMetadata().GetResourceVersion() == b.GetMetadata().GetResourceVersion() && sameObject(a, b)
}

func (i *Informer[T]) notify(old, new T) {
	for _, f := range i.handlers {
		f(old, new)
	}
}

func (i *Informer[T]) decode(a *anypb.Any) (T, error) {
	if i.opts.MetadataOnly {
		a = &anypb.Any{TypeUrl: a.GetTypeUrl(), Value: onlyMetadata(a.GetValue())}
	}
	obj, err := decode[T](i.kind, a)
	if err == nil && i.opts.Transform != nil {
		i.opts.Transform(obj)
	}
	return obj, err
}

// metadataField is the number of the metadata field in every kind.
const metadataField = 1

// onlyMetadata returns the metadata fields of an encoded object. There are several: the server
// appends one with the resourceVersion. Bytes that do not parse are returned whole, for the decoder
// to say what is wrong.
func onlyMetadata(b []byte) []byte {
	kept := make([]byte, 0, min(len(b), 1024))
	for rest := b; len(rest) > 0; {
		number, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return b
		}
		if number == metadataField {
			kept = append(kept, rest[:n]...)
		}
		rest = rest[n:]
	}
	return kept
}
