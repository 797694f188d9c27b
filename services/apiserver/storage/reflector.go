package storage

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"

	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/metrics"
)

const (
	// streamKey in a request's metadata separates streams: etcd's client puts watches with equal
	// metadata on one stream, and a progress notification answers for all watches of its stream.
	streamKey = "xebec-watch"

	// progressDelay is how long readers wait for the events that they need before progress is
	// requested. It is needed only when a write outside Root raised etcd's revision.
	progressDelay = 5 * time.Millisecond
	// etcd drops the request while a watch catches up, so it is repeated.
	progressInterval = 50 * time.Millisecond
	// stallLimit is how long etcd may send nothing while readers wait, if it is not slower than that
	// usually: the member that serves the watch hangs, and another is tried.
	stallLimit = time.Second

	// maxPageTimeouts bounds the time for a page of all objects, in ReadTimeouts.
	maxPageTimeouts = 8

	// brokenLimit is how long the store counts as ready without a watch on etcd. A slow etcd, a stall
	// or an election of its leader interrupts the watch for less. While etcd is slow, the other
	// apiservers use the same etcd: if all of them were taken out of rotation, a slow control plane
	// would be down.
	brokenLimit = 10 * time.Second

	// watchBackoffMin and watchBackoffMax are the limits of the back-off between attempts to watch.
	watchBackoffMin = 50 * time.Millisecond
	watchBackoffMax = 3 * time.Second
)

// reflector follows the watch on etcd that carries etcd's changes into the cache.
type reflector struct {
	filled chan struct{} // closed when the cache has been filled for the first time
	live   atomic.Bool   // the cache is filled and the watch runs
	lost   atomic.Int64  // when live ended, in Unix nanoseconds; 0 while it is live and before it has been for the first time
	lag    chan struct{} // holds a token when a reader began to wait
	// silence limits how long etcd may send nothing while readers wait.
	silence *adaptiveTimeout
}

func newReflector(silence *adaptiveTimeout) reflector {
	return reflector{filled: make(chan struct{}), lag: make(chan struct{}, 1), silence: silence}
}

// interrupted records that the watch does not run.
func (r *reflector) interrupted() {
	if r.live.Swap(false) {
		r.lost.Store(time.Now().UnixNano())
	}
}

// usable reports whether the watch runs, or ran a short while ago and may be resumed.
func (r *reflector) usable() bool {
	if r.live.Load() {
		return true
	}
	lost := r.lost.Load()
	return lost != 0 && time.Since(time.Unix(0, lost)) < brokenLimit
}

// wake tells the reflector that a reader waits.
func (r *reflector) wake() {
	select {
	case r.lag <- struct{}{}:
	default:
	}
}

// errStalled: the watch sent nothing while readers waited.
var errStalled = errors.New("etcd's watch has stalled")

// runReflector fills the cache and follows etcd until ctx ends.
func (s *Store) runReflector(ctx context.Context) { s.keepFollowing(ctx, s.follow) }

// keepFollowing calls follow again, with a back-off, whenever it returns, until ctx ends.
func (s *Store) keepFollowing(ctx context.Context, follow func(ctx context.Context, fill bool) error) {
	wait := backoff.Backoff{Min: watchBackoffMin, Max: watchBackoffMax}
	fill := true
	for ctx.Err() == nil {
		started := time.Now()
		err := follow(ctx, fill)
		s.reflector.interrupted()
		if ctx.Err() != nil {
			return
		}
		// Only an empty cache or one behind a compaction must be filled; otherwise the watch resumes
		// where it was.
		fill = s.cache.at() == 0 || errors.Is(err, ErrCompacted)
		if errors.Is(err, errStalled) || time.Since(started) > watchBackoffMax {
			wait.Reset()
		}
		pause := wait.Next(err)
		s.log.Warn("Lost the watch on etcd", zap.Error(err), zap.Int64(metrics.KeyRevision, s.cache.at()),
			zap.Bool(metrics.KeyRelist, fill), zap.Duration(metrics.KeyRetryAfter, pause))
		_ = backoff.Sleep(ctx, pause) // the loop sees that ctx has ended
	}
}

// follow fills the cache if fill is set and then applies the events of etcd's watch. It returns why
// that ended.
func (s *Store) follow(ctx context.Context, fill bool) error {
	kinds, kindsChanged := s.scheme.Watch()
	if err := s.followKinds(ctx, kinds, fill); err != nil {
		return err
	}
	target := int64(0) // the cache is filled when it has reached this revision
	if fill {
		var err error
		if target, err = s.fill(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, streamKey, "cache"))
	defer cancel()
	watching := clientv3.WithRequireLeader(ctx)
	// All of Root and not only the registry: then every revision that Xebec makes is an event, and
	// readers need to request progress only after a write of another program.
	responses := s.cli.Watch(watching, Root, clientv3.WithPrefix(), clientv3.WithRev(s.cache.at()+1),
		clientv3.WithProgressNotify(), clientv3.WithFragment())
	s.setLive(target)

	tidy := time.NewTicker(pagedLife / 2)
	defer tidy.Stop()
	ask := time.NewTimer(0) // runs while readers wait
	<-ask.C
	defer ask.Stop()
	asking := s.cache.at() < target
	if asking {
		ask.Reset(progressDelay)
	}
	quiet := time.Now() // since when readers have waited without a response from etcd
	for {
		select {
		case resp, ok := <-responses:
			if !ok {
				return errors.New("etcd's client closed the watch")
			}
			if err := resp.Err(); err != nil {
				return fmt.Errorf("watch: %w", readError(err))
			}
			s.applyResponse(resp)
			s.setLive(target)
			if asking {
				s.reflector.silence.answered(time.Since(quiet))
			}
			quiet = time.Now()
		case <-s.reflector.lag:
			if !asking {
				asking, quiet = true, time.Now()
				ask.Reset(progressDelay)
			}
		case <-ask.C:
			if asking = s.cache.awaited() || s.cache.at() < target; !asking {
				continue
			}
			if limit := s.reflector.silence.limit(); time.Since(quiet) > limit {
				s.reflector.silence.exceeded(limit)
				return errStalled
			}
			if err := s.requestProgress(watching); err != nil {
				return err
			}
			ask.Reset(progressInterval)
		case <-kindsChanged:
			kinds, kindsChanged = s.scheme.Watch()
			if err := s.followKinds(ctx, kinds, false); err != nil {
				return err
			}
		case now := <-tidy.C:
			s.cache.dropPaged(now)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// requestProgress requests a progress notification on the stream that watching belongs to.
func (s *Store) requestProgress(watching context.Context) error {
	// The client blocks while it has no connection for the stream.
	limit := s.reflector.silence.limit()
	ctx, cancel := context.WithTimeout(watching, limit)
	defer cancel()
	err := s.cli.RequestProgress(ctx)
	if err != nil && ctx.Err() != nil && watching.Err() == nil {
		s.reflector.silence.exceeded(limit)
		return errStalled
	}
	if err != nil {
		return fmt.Errorf("request progress: %w", readError(err))
	}
	return nil
}

// setLive marks the reflector as live once the cache has reached target.
func (s *Store) setLive(target int64) {
	if s.reflector.live.Load() || s.cache.at() < target {
		return
	}
	s.reflector.live.Store(true)
	s.reflector.lost.Store(0)
	select {
	case <-s.reflector.filled:
	default:
		close(s.reflector.filled)
		s.log.Info("Filled the cache from etcd", zap.Int64(metrics.KeyRevision, s.cache.at()))
	}
}

// applyResponse applies one response of the watch.
func (s *Store) applyResponse(resp clientv3.WatchResponse) {
	if resp.IsProgressNotify() {
		s.cache.apply(nil, resp.Header.Revision)
		return
	}
	if len(resp.Events) == 0 {
		return
	}
	updates := make([]update, 0, len(resp.Events))
	for _, e := range resp.Events {
		key, k, ok := s.recognize(e.Kv)
		if !ok {
			continue
		}
		u := update{kind: k, key: key, at: e.Kv.ModRevision}
		if e.Type == clientv3.EventTypePut {
			u.object = k.object(key, e.Kv)
		}
		updates = append(updates, u)
	}
	// Not the header's revision: it may be ahead of the events. etcd never splits a revision over two
	// responses, except in fragments, which its client reassembles.
	s.cache.apply(updates, resp.Events[len(resp.Events)-1].Kv.ModRevision)
}

// recognize returns the key and the kind of an object in etcd. It returns false for other keys:
// owners of leases, registrations of services, objects of kinds that this version does not know.
func (s *Store) recognize(kv *mvccpb.KeyValue) (Key, *kindCache, bool) {
	key, err := ParseKey(string(kv.Key))
	if err != nil {
		return Key{}, nil, false
	}
	k, err := s.cache.kind(key.Group, key.Kind)
	if err != nil {
		return Key{}, nil, false
	}
	return key, k, true
}

// fill makes the cache hold the whole state of etcd, and returns the revision at which it is then
// up to date.
func (s *Store) fill(ctx context.Context) (int64, error) {
	now, err := s.etcdRevision(ctx)
	if err != nil {
		return 0, fmt.Errorf("fill the cache: %w", err)
	}
	at := now
	if s.cache.at() == 0 {
		// From some way back: replaying the changes since then makes a history for watches to resume
		// from.
		at = max(1, now-max(0, s.cfg.HistoryPreload))
	}
	objects, err := s.readAll(ctx, at)
	if errors.Is(err, ErrCompacted) && at < now {
		at = now
		objects, err = s.readAll(ctx, at)
	}
	if err != nil {
		return 0, fmt.Errorf("fill the cache: %w", err)
	}
	s.cache.replace(objects, at)
	return now, nil
}

// readAll reads all objects as they were at a revision.
func (s *Store) readAll(ctx context.Context, revision int64) (map[*kindCache][]*Object, error) {
	objects := make(map[*kindCache][]*Object)
	err := s.readPrefix(ctx, RegistryPrefix, revision, func(kv *mvccpb.KeyValue) {
		if key, k, ok := s.recognize(kv); ok {
			objects[k] = append(objects[k], k.object(key, kv))
		}
	})
	return objects, err
}
