package storage

import (
	"context"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// barrier makes reads of the cache linearizable. A read may answer once the cache holds a revision
// that a quorum of etcd confirmed after the read began. It is a single flight: all reads that begin
// while one request for the revision is under way share the next one, so that their number does not
// load etcd.
type barrier struct {
	mu   sync.Mutex
	busy bool
	next *revisionCall // not started: the reads that join it now began before it
}

// revisionCall is one request to etcd for its revision, and the wait for the cache to reach it.
type revisionCall struct {
	done chan struct{}
	err  error // valid once done is closed
}

// current waits until the cache holds everything that was acknowledged before it was called.
func (s *Store) current(ctx context.Context) error {
	c := s.barrier.join(s)
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

func (b *barrier) join(s *Store) *revisionCall {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = &revisionCall{done: make(chan struct{})}
	}
	c := b.next
	if !b.busy {
		b.busy, b.next = true, nil
		go s.readRevision(c)
	}
	return c
}

// readRevision makes one call. It starts the next one as soon as etcd has answered, without waiting
// for the cache.
func (s *Store) readRevision(c *revisionCall) {
	// The deadline is its own, and not that of any read that shares it.
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ReadTimeout)
	defer cancel()
	revision, err := s.etcdRevision(ctx)

	b := &s.barrier
	b.mu.Lock()
	if next := b.next; next != nil {
		b.next = nil
		go s.readRevision(next)
	} else {
		b.busy = false
	}
	b.mu.Unlock()

	if err == nil {
		err = s.awaitRevision(ctx, revision)
	}
	c.err = err
	close(c.done)
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
	s.reflector.wake()
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: the cache is at revision %d, behind etcd at %d", ErrUnavailable, s.cache.at(), revision)
	}
}
