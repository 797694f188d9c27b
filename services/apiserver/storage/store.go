// Package storage keeps the API's objects in etcd and serves reads and watches of them from a cache
// in memory.
//
// Reads are linearizable: a quorum of etcd confirms a revision no older than the start of the read,
// in a round trip that concurrent reads share, and the read is answered when the cache has reached
// that revision. Writes are etcd transactions, conditional on the revisions they were computed
// from. Several stores, in one process or many, may work on one etcd.
package storage

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/scheme"
)

// Config tunes a Store. The zero value of every field means its default.
type Config struct {
	// MaxTxnOps is etcd's limit on the operations of a transaction (its max-txn-ops). Default 10240,
	// that of `xebecd etcd`: etcd's own 128 is too small for a transaction of 500 writes. An etcd that
	// allows less refuses the larger ones.
	MaxTxnOps int `yaml:"maxTxnOps" help:"etcd's limit on the operations of a transaction, its max-txn-ops"`
	// ReadTimeout bounds a read, the wait for the cache included. Default 5 s.
	ReadTimeout time.Duration `yaml:"readTimeout" help:"time limit for a read"`
	// AttemptTimeout is how long one member of etcd gets to answer a read or a renewal before another
	// one is asked as well, so that a member that hangs does not use up ReadTimeout. While etcd
	// answers more slowly than that, it gets more. Default 1 s.
	AttemptTimeout time.Duration `yaml:"attemptTimeout" help:"minimum time for one member of etcd to answer a read"`
	// WriteAttempt is how long etcd gets to answer a write before its leader is considered dead. While
	// etcd answers more slowly than that, it gets more, up to a third of WriteTimeout. Default 500 ms.
	WriteAttempt time.Duration `yaml:"writeAttempt" help:"minimum time for etcd to answer a write before its leader is considered dead"`
	// WriteTimeout bounds a write, all attempts included. Default 10 s.
	WriteTimeout time.Duration `yaml:"writeTimeout" help:"time limit for a write"`
	// PageSize is how many objects a read from etcd asks for at a time. Default 500.
	PageSize int64 `yaml:"pageSize" help:"objects per read from etcd"`
	// HistoryChanges and HistoryBytes bound the recent changes kept per kind, from which watches
	// resume. Default 4096 and 8 MiB.
	HistoryChanges int `yaml:"historyChanges" help:"changes kept per kind, from which watches resume"`
	HistoryBytes   int `yaml:"historyBytes" help:"bytes of changes kept per kind"`
	// HistoryPreload is how many revisions back the cache starts when it is filled, so that watches
	// that were served by another store can resume here. Default 1000; negative for none.
	HistoryPreload int64 `yaml:"historyPreload" help:"revisions back at which the cache starts; negative for none"`
	// KeepPast is how far back objects can be read: what was before is compacted away. Default 30 min,
	// at least 1 min.
	KeepPast time.Duration `yaml:"keepPast" help:"how far back objects can be read"`
	// KeepPastBytes is the part of etcd's database in use, past and present together, above which less
	// of the past is kept, down to a minute. Default 1 GiB; a cluster whose objects alone are larger
	// needs more.
	KeepPastBytes int64 `yaml:"keepPastBytes" help:"bytes in use of etcd's database above which less of the past is kept"`
	// WatchChanges and WatchBytes bound what is buffered for one watcher before it is cut off as too
	// slow. Default 8192 and 16 MiB.
	WatchChanges int `yaml:"watchChanges" help:"events buffered for a watcher before it is cut off"`
	WatchBytes   int `yaml:"watchBytes" help:"bytes buffered for a watcher before it is cut off"`
	// BookmarkInterval is how long a watch is silent at most. Default 30 s.
	BookmarkInterval time.Duration `yaml:"bookmarkInterval" help:"maximum time between two messages of a watch"`
}

func (c *Config) setDefaults() {
	setDefault(&c.MaxTxnOps, 10240)
	setDefault(&c.ReadTimeout, 5*time.Second)
	setDefault(&c.AttemptTimeout, time.Second)
	setDefault(&c.WriteAttempt, 500*time.Millisecond)
	setDefault(&c.WriteTimeout, 10*time.Second)
	setDefault(&c.PageSize, 500)
	setDefault(&c.HistoryChanges, 4096)
	setDefault(&c.HistoryBytes, 8<<20)
	setDefault(&c.HistoryPreload, 1000)
	setDefault(&c.KeepPast, 30*time.Minute)
	setDefault(&c.KeepPastBytes, 1<<30)
	setDefault(&c.WatchChanges, 8192)
	setDefault(&c.WatchBytes, 16<<20)
	setDefault(&c.BookmarkInterval, 30*time.Second)
}

func (c *Config) validate() error {
	for name, v := range map[string]int64{
		"MaxTxnOps": int64(c.MaxTxnOps), "ReadTimeout": int64(c.ReadTimeout), "AttemptTimeout": int64(c.AttemptTimeout),
		"WriteAttempt": int64(c.WriteAttempt), "WriteTimeout": int64(c.WriteTimeout), "PageSize": c.PageSize,
		"HistoryChanges": int64(c.HistoryChanges), "HistoryBytes": int64(c.HistoryBytes),
		"WatchChanges": int64(c.WatchChanges), "WatchBytes": int64(c.WatchBytes),
		"BookmarkInterval": int64(c.BookmarkInterval), "KeepPastBytes": c.KeepPastBytes,
	} {
		if v < 0 {
			return fmt.Errorf("storage: %s must not be negative", name)
		}
	}
	if c.KeepPast < leastPast {
		return fmt.Errorf("storage: KeepPast must be at least %s, is %s", leastPast, c.KeepPast)
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Store reads and writes objects. Its methods may be called by many goroutines at once.
type Store struct {
	cfg       Config
	cli       *clientv3.Client
	log       *zap.Logger
	scheme    *scheme.Scheme
	cache     *cache
	barrier   barrier
	reflector reflector
	groups    groups
	renewals  renewals
	epoch     atomic.Int64 // as far as known; see attempt.go
	epochs    epochChanges
	reads     *adaptiveTimeout // for requests that write nothing to etcd's log
	writes    *adaptiveTimeout
}

// New returns a store on etcd for the kinds of a scheme, whose changes it follows. Reads and
// watches need Run.
func New(cfg Config, kinds *scheme.Scheme, cli *clientv3.Client, log *zap.Logger) (*Store, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, cli: cli, log: log, scheme: kinds, cache: newCache(cfg, kinds.Kinds()),
		reads:     newAdaptiveTimeout(cfg.AttemptTimeout, cfg.ReadTimeout/2),
		writes:    newAdaptiveTimeout(cfg.WriteAttempt, cfg.WriteTimeout/3),
		reflector: newReflector(newAdaptiveTimeout(stallLimit, cfg.ReadTimeout*4/5)),
		// After ReadTimeout no caller is left that could notice that a member is silent.
		renewals: renewals{cli: cli, timeout: newAdaptiveTimeout(cfg.AttemptTimeout, cfg.ReadTimeout*4/5)},
	}
	return s, nil
}

// Run keeps the cache up to date until ctx ends, through every failure of etcd. It also writes the
// clock and compacts the past. It returns nil.
func (s *Store) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	clock, compaction := time.NewTicker(ClockPrecision), time.NewTicker(compactEvery)
	defer clock.Stop()
	defer compaction.Stop()
	beside.Go(func() { s.runClock(ctx, clock.C) })
	beside.Go(func() { s.runCompaction(ctx, compaction.C) })
	s.runReflector(ctx)
	beside.Wait()
	return nil
}

// WaitReady waits until the cache has been filled for the first time.
func (s *Store) WaitReady(ctx context.Context) error {
	select {
	case <-s.reflector.filled:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: the cache is not filled yet: %w", ErrUnavailable, ctx.Err())
	}
}

// Ready reports whether the store can serve calls: its cache has been filled, and the watch on etcd
// runs or ran until a few seconds ago. It does not depend on how fast etcd is.
func (s *Store) Ready() bool { return s.reflector.usable() }

// Get returns an object; ErrNotFound when there is none. The read is linearizable: it sees every
// write that was acknowledged, by any store, before Get was called.
func (s *Store) Get(ctx context.Context, key Key) (*Object, error) {
	if _, err := s.kind(ctx, key.Group, key.Kind); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if err := s.current(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if o, ok := s.GetCached(key); ok {
		return o, nil
	}
	return nil, fmt.Errorf("get %s: %w", key, ErrNotFound)
}

// GetCached returns an object as the cache holds it now, which may be stale. It does no I/O.
func (s *Store) GetCached(key Key) (*Object, bool) { return s.cache.get(key) }

// CountCached returns how many objects of a kind the cache holds now.
func (s *Store) CountCached(group, kind string) int { return s.cache.count(group, kind) }

// GetAt returns an object as it was at a revision; ErrNotFound when there was none, ErrCompacted
// when it is no longer known, ErrFutureRevision when there is no such revision yet. Revision 0 is
// now.
func (s *Store) GetAt(ctx context.Context, key Key, revision int64) (*Object, error) {
	if revision == 0 {
		return s.Get(ctx, key)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	resp, err := s.read(ctx, key.String(), clientv3.WithRev(revision))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, readError(err))
	}
	if len(resp.Kvs) == 0 {
		return nil, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return s.decode(resp.Kvs[0])
}

// decode turns a key and value of etcd's into an object. It fails for keys that are not objects of
// a known kind.
func (s *Store) decode(kv *mvccpb.KeyValue) (*Object, error) {
	key, err := ParseKey(string(kv.Key))
	if err != nil {
		return nil, err
	}
	k, err := s.cache.kind(key.Group, key.Kind)
	if err != nil {
		return nil, err
	}
	return k.object(key, kv), nil
}
