package storage

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/scheme"
)

// kindSet is the kinds that the cache holds between two changes of the scheme. Only replaced ever
// changes.
type kindSet struct {
	caches map[groupKind]*kindCache
	// replaced is closed when another set has taken the place of this one.
	replaced chan struct{}
}

func newKindSet(caches map[groupKind]*kindCache) *kindSet {
	return &kindSet{caches: caches, replaced: make(chan struct{})}
}

// kind returns the cache of a kind. For a kind that has just been registered it waits until the
// cache holds the objects.
func (s *Store) kind(ctx context.Context, group, name string) (*kindCache, error) {
	set := s.cache.kinds.Load()
	if k, ok := set.caches[groupKind{group, name}]; ok {
		return k, nil
	}
	limit := time.NewTimer(s.cfg.ReadTimeout)
	defer limit.Stop()
	for {
		if k, ok := set.caches[groupKind{group, name}]; ok {
			return k, nil
		}
		if _, ok := s.scheme.ByGroupKind(group, name); !ok {
			return nil, unknownKind(group, name)
		}
		select {
		case <-set.replaced:
		case <-limit.C:
			return nil, fmt.Errorf("%w: the objects of kind %q of group %q have not been read yet", ErrUnavailable, name, group)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the objects of kind %q of group %q have not been read yet: %w", ErrUnavailable, name, group, ctx.Err())
		}
		set = s.cache.kinds.Load()
	}
}

// Holds reports whether the cache holds the objects of a kind. It does so shortly after the kind
// was registered.
func (s *Store) Holds(group, kind string) bool {
	_, err := s.cache.kind(group, kind)
	return err == nil
}

// followKinds makes the cache hold the given kinds, and no others. The objects of an added kind are
// read as they were at the revision of the cache, unless all of the cache will be filled anyway.
// Watches of a removed kind end with ErrUnknownKind. Only the reflector calls it.
func (s *Store) followKinds(ctx context.Context, kinds []*scheme.Kind, filling bool) error {
	before := s.cache.kinds.Load()
	caches := make(map[groupKind]*kindCache, len(kinds))
	added := 0
	changed := false
	for _, k := range kinds {
		id := groupKind{k.Group, k.Name}
		if have := before.caches[id]; have != nil && have.typeURL == k.TypeURL() {
			caches[id] = have
			continue
		}
		caches[id] = newKindCache(s.cfg, k)
		changed = true
		if !filling {
			if err := s.fillKind(ctx, id, caches[id]); err != nil {
				return err
			}
		}
		added++
	}
	for id, k := range before.caches {
		if caches[id] == k {
			continue
		}
		changed = true
		k.end(unknownKind(id.group, id.kind))
	}
	if changed {
		s.cache.kinds.Store(newKindSet(caches))
		close(before.replaced)
		s.log.Info("Kinds changed", zap.Int(metrics.KeyKinds, len(caches)), zap.Int(metrics.KeyAdded, added))
	}
	return nil
}

// fillKind reads the objects of a kind, as they were at the revision of the cache, into a cache
// that is not in use yet.
func (s *Store) fillKind(ctx context.Context, id groupKind, k *kindCache) error {
	revision := s.cache.at()
	var objects []*Object
	err := s.readPrefix(ctx, kindPrefix(id.group, id.kind), revision, func(kv *mvccpb.KeyValue) {
		if key, err := ParseKey(string(kv.Key)); err == nil {
			objects = append(objects, k.object(key, kv))
		}
	})
	if err != nil {
		return fmt.Errorf("read the objects of kind %q of group %q: %w", id.kind, id.group, err)
	}
	k.replace(objects, revision)
	k.history.reset(revision)
	return nil
}

// readPrefix reads the keys with a prefix as they were at a revision. A page that etcd could not
// answer, or not in time, is asked for again, with more time: what was read before it is not read
// again.
func (s *Store) readPrefix(ctx context.Context, prefix string, revision int64, found func(*mvccpb.KeyValue)) error {
	start, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	limit, pauses := s.cfg.ReadTimeout, newBackoff()
	for {
		page, cancel := context.WithTimeout(ctx, limit)
		resp, err := s.cli.Get(page, start, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(s.cfg.PageSize))
		cancel()
		if err != nil && transient(err) && limit < maxPageTimeouts*s.cfg.ReadTimeout && pauses.Wait(ctx, err) == nil {
			limit *= 2
			continue
		}
		if err != nil {
			return readError(err)
		}
		for _, kv := range resp.Kvs {
			found(kv)
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
		start = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// end ends the watches of a kind that is no longer held, with an error.
func (k *kindCache) end(err error) {
	k.watchMu.Lock()
	defer k.watchMu.Unlock()
	k.ended = err
	for w := range k.watchers.each() {
		w.fail(err)
	}
}

func unknownKind(group, name string) error {
	return fmt.Errorf("%w: %q of group %q", ErrUnknownKind, name, group)
}
