package storage

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/utils/third_party/forked/golang/btree"
)

// Match selects objects; nil selects all. It must not block, and may be called by several
// goroutines at once.
type Match func(*Object) bool

func (m Match) ok(o *Object) bool { return m == nil || m(o) }

// visitsPerCheck is how many objects are matched between two checks of whether the caller still
// waits.
const visitsPerCheck = 64

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
	// Remaining is how many objects follow, 0 when none do or when Match selects among them.
	Remaining int64
}

// List returns the objects of one kind at one revision, or a page of them. All pages show the
// snapshot of the first; ErrCompacted when it is no longer known, ErrContinue when the token is not
// one for this list.
func (s *Store) List(ctx context.Context, opts ListOptions) (ListResult, error) {
	k, err := s.kind(ctx, opts.Group, opts.Kind)
	if err != nil {
		return ListResult{}, err
	}
	prefix := listPrefix(opts.Group, opts.Kind, opts.Namespace)
	if opts.Continue != "" {
		token, err := parseToken(opts.Continue, prefix)
		if err != nil {
			return ListResult{}, err
		}
		if snap, ok := s.cache.paged(k, token.revision); ok {
			return s.listSnapshot(ctx, k, snap, token.revision, token.last, opts)
		}
		return s.listEtcd(ctx, prefix, token, opts)
	}
	if opts.AtRevision != 0 {
		return s.listEtcd(ctx, prefix, pageToken{revision: opts.AtRevision}, opts)
	}
	if !opts.Stale {
		if err := s.current(ctx); err != nil {
			return ListResult{}, fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	snap, revision := s.cache.snapshot(k)
	if revision == 0 {
		return ListResult{}, fmt.Errorf("list %s: %w: the cache is not filled yet", prefix, ErrUnavailable)
	}
	return s.listSnapshot(ctx, k, snap, revision, Key{}, opts)
}

// listSnapshot reads a page from a snapshot of the cache, after the key last unless that is zero.
func (s *Store) listSnapshot(
	ctx context.Context, k *kindCache, snap *btree.BTree[*Object], revision int64, last Key, opts ListOptions,
) (ListResult, error) {
	result := ListResult{Revision: revision}
	if opts.Limit <= 0 && opts.Match == nil && opts.Namespace == "" && last == (Key{}) {
		result.Objects = make([]*Object, 0, snap.Len())
	}
	var previous *Object // the last one looked at
	visited := 0
	visit := func(o *Object) bool {
		if result.Continue != "" {
			// Only the rest is counted.
			if opts.Namespace != "" && o.Key.Namespace != opts.Namespace {
				return false
			}
			result.Remaining++
			return true
		}
		if visited++; visited%visitsPerCheck == 0 && ctx.Err() != nil {
			return false
		}
		if opts.Namespace != "" && o.Key.Namespace != opts.Namespace {
			return false
		}
		if opts.Limit > 0 && int64(len(result.Objects)) == opts.Limit {
			// There is one more, whether it matches or not: the token names where to go on.
			result.Continue = pageToken{revision: revision, last: previous.Key}.encode()
			result.Remaining = 1
			return opts.Match == nil
		}
		previous = o
		if opts.Match.ok(o) {
			result.Objects = append(result.Objects, o)
		}
		return true
	}
	switch {
	case last != (Key{}):
		snap.AscendGreaterOrEqual(&Object{Key: last}, func(o *Object) bool {
			return o.Key == last || visit(o)
		})
	case opts.Namespace != "":
		snap.AscendGreaterOrEqual(&Object{Key: Key{Namespace: opts.Namespace}}, visit)
	default:
		snap.Ascend(visit)
	}
	if err := ctx.Err(); err != nil {
		return ListResult{}, fmt.Errorf("list %s/%s: %w", opts.Group, opts.Kind, err)
	}
	if opts.Match != nil {
		result.Remaining = 0
	}
	if result.Continue != "" {
		s.cache.keepPaged(k, snap, revision)
	}
	return result, nil
}

// listEtcd reads a page from etcd.
func (s *Store) listEtcd(ctx context.Context, prefix string, token pageToken, opts ListOptions) (ListResult, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	result := ListResult{Revision: token.revision}
	var last Key
	start, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if token.last != (Key{}) {
		start = token.last.String() + "\x00"
	}
	for {
		resp, err := s.read(ctx, start, clientv3.WithRange(end), clientv3.WithRev(result.Revision), clientv3.WithLimit(s.cfg.PageSize))
		if err != nil {
			return ListResult{}, fmt.Errorf("list %s: %w", prefix, readError(err))
		}
		for i, kv := range resp.Kvs {
			if opts.Limit > 0 && int64(len(result.Objects)) == opts.Limit {
				result.Continue = pageToken{revision: result.Revision, last: last}.encode()
				if opts.Match == nil {
					result.Remaining = resp.Count - int64(i)
				}
				return result, nil
			}
			o, err := s.decode(kv)
			if err != nil {
				return ListResult{}, fmt.Errorf("list %s: %w", prefix, err)
			}
			last = o.Key
			if opts.Match.ok(o) {
				result.Objects = append(result.Objects, o)
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return result, nil
		}
		start = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
