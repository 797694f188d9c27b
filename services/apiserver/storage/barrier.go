package storage

import (
	"context"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// barrier makes reads of the cache linearizable. A read may answer once the cache holds a revision
// that a quorum of etcd named after the read began. All reads that begin while one such question is
// under way share the next one, so that their number does not load etcd.
type barrier struct {
	mu   sync.Mutex
	busy bool
	next *flight // not started: those who join now began before it
}

// flight is one question to etcd for its revision, and the wait for the cache to reach it.
type flight struct {
	landed chan struct{}
	err    error // valid once landed
}

// current waits until the cache holds everything that was acknowledged before it was called.
func (s *Store) current(ctx context.Context) error {
	f := s.barrier.join(s)
	select {
	case <-f.landed:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

func (b *barrier) join(s *Store) *flight {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = &flight{landed: make(chan struct{})}
	}
	f := b.next
	if !b.busy {
		b.busy, b.next = true, nil
		go s.fly(f)
	}
	return f
}

// fly runs one flight, and once etcd has answered starts the next, without waiting for the cache.
func (s *Store) fly(f *flight) {
	// Bounded by itself and not by any of the reads that share it.
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ReadTimeout)
	defer cancel()
	revision, err := s.etcdRevision(ctx)

	b := &s.barrier
	b.mu.Lock()
	if next := b.next; next != nil {
		b.next = nil
		go s.fly(next)
	} else {
		b.busy = false
	}
	b.mu.Unlock()

	if err == nil {
		err = s.awaitRevision(ctx, revision)
	}
	f.err = err
	close(f.landed)
}

// etcdRevision asks a quorum of etcd for the current revision.
func (s *Store) etcdRevision(ctx context.Context) (int64, error) {
	// No such key: the answer is a header, which the client, as with every get, has only after a
	// quorum confirmed it.
	resp, err := s.read(ctx, RegistryPrefix, clientv3.WithKeysOnly())
	if err != nil {
		return 0, readError(err)
	}
	return resp.Header.Revision, nil
}

// read reads from etcd.
func (s *Store) read(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return hedged(ctx, s.reads, func(ctx context.Context) (*clientv3.GetResponse, error) { return s.cli.Get(ctx, key, options...) })
}

// awaitRevision waits until the cache has reached a revision.
func (s *Store) awaitRevision(ctx context.Context, revision int64) error {
	w := s.cache.await(revision)
	if w == nil {
		return nil
	}
	defer s.cache.forget(w)
	s.feed.prod()
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: the cache is at revision %d, behind etcd at %d", ErrUnavailable, s.cache.at(), revision)
	}
}
