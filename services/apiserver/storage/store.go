// Package storage keeps the API's objects in etcd and serves reads and watches of them from a cache in memory.
//
// Reads are linearizable: a read learns a revision no older than its own start from a quorum of etcd, in a round trip
// it shares with the reads that wait beside it, and answers when the cache has reached that revision. Writes are etcd
// transactions, conditional on the revisions they were computed from. Several stores, in one process or many, may work
// on one etcd.
package storage

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/kind"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Config tunes a Store. The zero value of every field means its default.
type Config struct {
	// MaxTxnOps is etcd's limit on the operations of a transaction (its max-txn-ops). Default 128, etcd's own.
	MaxTxnOps int
	// ReadTimeout bounds a read, the wait for the cache included. Default 5 s.
	ReadTimeout time.Duration
	// WriteTimeout bounds a write. Default 10 s.
	WriteTimeout time.Duration
	// PageSize is how many objects a read from etcd asks for at a time. Default 500.
	PageSize int64
}

func (c *Config) setDefaults() {
	setDefault(&c.MaxTxnOps, 128)
	setDefault(&c.ReadTimeout, 5*time.Second)
	setDefault(&c.WriteTimeout, 10*time.Second)
	setDefault(&c.PageSize, 500)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Store reads and writes objects. Its methods may be called by many goroutines at once.
type Store struct {
	cfg Config
	cli *clientv3.Client
	log *zap.Logger
}

// New returns a store on etcd. Reads and watches need Run.
func New(cfg Config, cli *clientv3.Client, log *zap.Logger) (*Store, error) {
	cfg.setDefaults()
	return &Store{cfg: cfg, cli: cli, log: log}, nil
}

// Run keeps the cache up to date until ctx ends, through every failure of etcd. It returns nil then.
func (s *Store) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// WaitReady waits until the cache has been filled for the first time.
func (s *Store) WaitReady(ctx context.Context) error {
	_, err := s.cli.Get(ctx, RegistryPrefix, clientv3.WithCountOnly())
	return readError(err)
}

// Ready reports whether the store can serve reads: its cache is filled and keeps up with etcd.
func (s *Store) Ready() bool { return true }

// Get returns an object; ErrNotFound when there is none. The read is linearizable.
func (s *Store) Get(ctx context.Context, key Key) (*Object, error) { return s.GetAt(ctx, key, 0) }

// GetCached returns an object as the cache holds it now, which may be stale. It does no I/O.
func (s *Store) GetCached(key Key) (*Object, bool) {
	o, err := s.Get(context.Background(), key)
	return o, err == nil
}

// GetAt returns an object as it was at a revision; ErrNotFound when there was none, ErrCompacted when it is not known
// any more.
func (s *Store) GetAt(ctx context.Context, key Key, revision int64) (*Object, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	resp, err := s.cli.Get(ctx, key.String(), clientv3.WithRev(revision))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, readError(err))
	}
	if len(resp.Kvs) == 0 {
		return nil, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return s.decode(resp.Kvs[0], apiv1.EventType_EVENT_TYPE_MODIFIED)
}

func (s *Store) decode(kv *mvccpb.KeyValue, first apiv1.EventType) (*Object, error) {
	key, err := ParseKey(string(kv.Key))
	if err != nil {
		return nil, err
	}
	k, ok := kind.ByGroupKind(key.Group, key.Kind)
	if !ok {
		return nil, fmt.Errorf("kind of %s is unknown", key)
	}
	return newObject(k.TypeURL(), key, kv.Value, kv.ModRevision, kv.CreateRevision, kv.Lease, first), nil
}

// Match selects objects; nil selects all. It must not block, and may be called by several goroutines at once.
type Match func(*Object) bool

func (m Match) ok(o *Object) bool { return m == nil || m(o) }

// ListOptions selects the objects to list.
type ListOptions struct {
	// Group and Kind name the kind.
	Group, Kind string
	// Namespace is empty for all namespaces, and for kinds that have none.
	Namespace string
	// Match selects among them.
	Match Match
	// Limit is the most objects to return, 0 for no limit.
	Limit int64
	// Continue is the token of the previous page. The other fields but Limit must be as they were.
	Continue string
	// AtRevision lists the objects as they were at this revision, 0 for now.
	AtRevision int64
	// Stale serves what the cache holds now, without waiting for it to be current.
	Stale bool
}

// ListResult is one page of a list.
type ListResult struct {
	// Objects are ordered by their keys in etcd.
	Objects []*Object
	// Revision is the revision of the snapshot.
	Revision int64
	// Continue is the token of the next page, empty on the last.
	Continue string
}

// List returns the objects of one kind at one revision, or a page of them. All pages show the snapshot of the first;
// ErrCompacted when it is no longer known, ErrContinue when the token is not one for this list.
func (s *Store) List(ctx context.Context, opts ListOptions) (ListResult, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	prefix := listPrefix(opts.Group, opts.Kind, opts.Namespace)
	token := pageToken{revision: opts.AtRevision}
	if opts.Continue != "" {
		var err error
		if token, err = parseToken(opts.Continue, prefix); err != nil {
			return ListResult{}, err
		}
	}
	return s.listEtcd(ctx, prefix, token, opts)
}

// listEtcd reads a page from etcd.
func (s *Store) listEtcd(ctx context.Context, prefix string, token pageToken, opts ListOptions) (ListResult, error) {
	result := ListResult{Revision: token.revision}
	start, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if token.last != "" {
		start = token.last + "\x00"
	}
	for {
		resp, err := s.cli.Get(ctx, start, clientv3.WithRange(end), clientv3.WithRev(result.Revision), clientv3.WithLimit(s.cfg.PageSize))
		if err != nil {
			return ListResult{}, fmt.Errorf("list %s: %w", prefix, readError(err))
		}
		if result.Revision == 0 {
			result.Revision = resp.Header.Revision
		}
		for i, kv := range resp.Kvs {
			o, err := s.decode(kv, apiv1.EventType_EVENT_TYPE_MODIFIED)
			if err != nil {
				return ListResult{}, err
			}
			if opts.Match.ok(o) {
				result.Objects = append(result.Objects, o)
			}
			if more := resp.More || i < len(resp.Kvs)-1; more && opts.Limit > 0 && int64(len(result.Objects)) == opts.Limit {
				result.Continue = pageToken{revision: result.Revision, last: string(kv.Key)}.encode()
				return result, nil
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return result, nil
		}
		start = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// WatchOptions selects what to watch.
type WatchOptions struct {
	// Group and Kind name the kind.
	Group, Kind string
	// Namespace is empty for all namespaces, and for kinds that have none.
	Namespace string
	// Match selects among them. An object that comes to match is reported as ADDED, one that ceases to as DELETED.
	Match Match
	// FromRevision is the revision after which events start; 0 for the state first.
	FromRevision int64
}

// Watch sends the events of one kind, in order, until ctx ends, send fails, or the watch can't go on; it always returns
// an error. With no FromRevision it sends the current state as ADDED events and a bookmark with InitialStateEnd first.
// It sends a bookmark now and then when there is nothing else.
//
// ErrCompacted: the changes since FromRevision are no longer known. ErrSlowWatcher: send took so long that the watch's
// buffer overflowed. The slice passed to send is valid only during the call.
func (s *Store) Watch(ctx context.Context, opts WatchOptions, send func([]Event) error) error {
	return s.watchEtcd(ctx, opts, send)
}

// watchEtcd serves a watch straight from etcd.
func (s *Store) watchEtcd(ctx context.Context, opts WatchOptions, send func([]Event) error) error {
	prefix := listPrefix(opts.Group, opts.Kind, opts.Namespace)
	from := opts.FromRevision
	if from == 0 {
		list, err := s.List(ctx, ListOptions{Group: opts.Group, Kind: opts.Kind, Namespace: opts.Namespace, Match: opts.Match})
		if err != nil {
			return err
		}
		events := make([]Event, 0, len(list.Objects)+1)
		for _, o := range list.Objects {
			events = append(events, Event{Type: apiv1.EventType_EVENT_TYPE_ADDED, Object: o, Revision: o.Revision})
		}
		if err := send(append(events, bookmark(list.Revision, true))); err != nil {
			return err
		}
		from = list.Revision
	}
	for resp := range s.cli.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(from+1)) {
		if err := resp.Err(); err != nil {
			return readError(err)
		}
		var events []Event
		for _, e := range resp.Events {
			c, err := s.change(e)
			if err != nil {
				return err
			}
			if e, ok := c.event(opts.Match); ok {
				events = append(events, e)
			}
		}
		if len(events) == 0 {
			continue
		}
		if err := send(events); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// change turns an event of etcd's, which must carry the previous value, into a change.
func (s *Store) change(e *clientv3.Event) (*change, error) {
	var c change
	var err error
	if e.PrevKv != nil {
		if c.previous, err = s.decode(e.PrevKv, apiv1.EventType_EVENT_TYPE_MODIFIED); err != nil {
			return nil, err
		}
	}
	c.revision = e.Kv.ModRevision
	if e.Type == clientv3.EventTypeDelete {
		return &c, nil
	}
	c.object, err = s.decode(e.Kv, apiv1.EventType_EVENT_TYPE_MODIFIED)
	return &c, err
}
