package storage

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A write that a member of etcd forwarded to a leader that failed gets no answer for seconds, even
// if the other members elected a new leader long ago. A repetition must not make the write happen
// twice, and the first attempt may still take effect. So every transaction is conditional on the
// epoch, a key that all stores share, being unchanged. When an attempt is not answered in time, the
// store changes the epoch: from then on the attempt can't take effect. What it did before that is
// in the history, and if it did nothing it is safe to repeat it.
//
// A slow etcd must not be mistaken for a failed leader: each change of the epoch makes the writes
// of all stores that are under way fail, and they are repeated. So the time for an attempt follows
// the time that etcd takes (adaptiveTimeout), the answer to an attempt whose time is over still
// counts until the epoch has changed, all attempts of one epoch share one change of it, and a
// change is conditional on that epoch: it happens once, however many stores request it.

// epochKey's modification revision is the epoch. Absent, it is 0.
const epochKey = Root + "epoch"

// outcome is the result of one attempt at a transaction.
type outcome struct {
	epoch    int64 // on which the attempt was conditional
	revision int64 // of the writes, when err is nil
	stale    bool  // the epoch had changed: nothing was written
	err      error
}

// attempt makes one attempt at a transaction.
func (s *Store) attempt(ctx context.Context, txn Txn, ops txnOps) outcome {
	epoch := s.epoch.Load()
	ops.ifs[0] = clientv3.Compare(clientv3.ModRevision(epochKey), "=", epoch)
	resp, err := s.request(ctx, epoch, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).If(ops.ifs...).Then(ops.then...).Else(ops.otherwise...).Commit()
	})
	switch {
	case err != nil:
		return outcome{epoch: epoch, err: writeError(err)}
	case resp.Succeeded:
		return outcome{epoch: epoch, revision: resp.Header.Revision}
	case s.learnEpoch(epoch, resp.Responses[0]):
		return outcome{epoch: epoch, stale: true}
	}
	return outcome{epoch: epoch, err: txn.explain(resp.Responses[1:])}
}

// request makes a request to etcd that is conditional on an epoch. When it is not answered in time,
// the epoch is changed while an answer to the request still counts; once it has changed, the
// request is given up.
func (s *Store) request(
	ctx context.Context, epoch int64, txn func(context.Context) (*clientv3.TxnResponse, error),
) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit := s.writes.limit()
	overdue := time.AfterFunc(limit, func() {
		s.writes.exceeded(limit)
		if _, err := s.changeEpoch(ctx, epoch); err == nil {
			cancel()
		}
	})
	defer overdue.Stop()
	sent := time.Now()
	resp, err := txn(ctx)
	if err == nil {
		s.writes.answered(time.Since(sent))
	}
	return resp, err
}

// settle makes sure that an unanswered attempt at a transaction can no longer take effect, and
// finds out whether it did, at a revision after since. The error is ErrUnknownOutcome when that
// can't be determined.
func (s *Store) settle(ctx context.Context, txn Txn, since int64, lost outcome) (revision int64, happened bool, err error) {
	epoch, err := s.changeEpoch(ctx, lost.epoch)
	if err == nil {
		err = s.awaitRevision(ctx, epoch)
	}
	if err != nil {
		return 0, false, fmt.Errorf("%w: %w", lost.err, err)
	}
	revision, happened, known := s.cache.trace(txn, since)
	if !known {
		return 0, false, lost.err
	}
	return revision, happened, nil
}

// settleNoSpace finds out the outcome of a transaction that etcd answered with ErrNoSpace. etcd
// applies the transaction that takes the database over its quota (quotaApplierV3 in its server) and
// refuses only those after it. The outcome is decided by then: a linearizable read shows it.
func (s *Store) settleNoSpace(ctx context.Context, txn Txn, since int64, cause error) (revision int64, err error) {
	if err := s.current(ctx); err != nil {
		return 0, fmt.Errorf("%w: %w: %w", cause, ErrUnknownOutcome, err)
	}
	if revision, happened, _ := s.cache.trace(txn, since); happened {
		return revision, nil
	}
	return 0, cause
}

// epochChanges is the single flight of changes of the same epoch.
type epochChanges struct {
	mu      sync.Mutex
	current *epochChange // nil while there is none
}

// epochChange is a change of the epoch that is under way.
type epochChange struct {
	from    int64
	cancel  context.CancelFunc
	waiting int // number of attempts that wait for it; guarded by epochChanges.mu

	done  chan struct{}
	epoch int64 // valid once done
	err   error
}

// changeEpoch makes sure that the epoch differs from the given one, and returns the epoch after it:
// a transaction conditional on from can't take effect at a later revision.
func (s *Store) changeEpoch(ctx context.Context, from int64) (int64, error) {
	if now := s.epoch.Load(); now != from {
		return now, nil
	}
	e := &s.epochs
	e.mu.Lock()
	c := e.current
	if c == nil || c.from != from {
		c = &epochChange{from: from, done: make(chan struct{})}
		// The deadline is its own, and not that of any attempt that shares it.
		var own context.Context
		own, c.cancel = context.WithTimeout(context.Background(), s.cfg.WriteTimeout)
		e.current = c
		go s.makeEpoch(own, c)
	}
	c.waiting++
	e.mu.Unlock()
	defer e.leave(c)
	select {
	case <-c.done:
		return c.epoch, c.err
	case <-ctx.Done():
		return 0, writeError(ctx.Err())
	}
}

// leave ends a change that no attempt waits for any more.
func (e *epochChanges) leave(c *epochChange) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.waiting--; c.waiting == 0 {
		c.cancel()
		e.forget(c)
	}
}

// forget makes the next attempt that needs a change begin another. Callers hold e.mu.
func (e *epochChanges) forget(c *epochChange) {
	if e.current == c {
		e.current = nil
	}
}

// makeEpoch changes the epoch. Until a new leader is elected every request for it may be lost, so
// requests follow each other faster than the timeout; only one of them has an effect.
func (s *Store) makeEpoch(ctx context.Context, c *epochChange) {
	defer c.cancel()
	pause := s.writes.floor / 2
	next := func() (time.Duration, func()) {
		d := jittered(max(s.writes.estimate()/2, pause))
		pause = min(pause*3/2, s.writes.floor)
		return d, func() {}
	}
	resp, err := hedgedBy(ctx, s.writes, next, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(epochKey), "=", c.from)).
			Then(clientv3.OpPut(epochKey, "")).
			Else(clientv3.OpGet(epochKey, clientv3.WithKeysOnly())).
			Commit()
	})
	switch {
	case err != nil:
		c.err = writeError(err)
	case resp.Succeeded:
		c.epoch = resp.Header.Revision
	default:
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
			c.epoch = kvs[0].ModRevision
		}
	}
	if err == nil {
		// A later one may be known already, from an attempt that failed for it.
		s.epoch.CompareAndSwap(c.from, c.epoch)
	}
	s.epochs.mu.Lock()
	s.epochs.forget(c)
	s.epochs.mu.Unlock()
	close(c.done)
}

// trace looks for a transaction among the changes after a revision. known is false when the history
// does not show whether it happened.
func (c *cache) trace(txn Txn, since int64) (revision int64, happened, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, w := range txn.Writes {
		k := c.kinds.Load().caches[groupKind{w.Key.Group, w.Key.Kind}]
		if k == nil || since == 0 || k.history.floor > since {
			return 0, false, false
		}
		touched := false
		for _, ch := range k.history.since(since) {
			if *ch.key() != w.Key {
				continue
			}
			touched = true
			if w.made(ch) {
				return ch.revision, true, true
			}
		}
		switch {
		case !touched:
			// Had the transaction happened, its key would have changed.
			return 0, false, true
		case !w.recognizable():
			continue // it may have been this or another transaction; see what became of the other keys
		default:
			return 0, false, true
		}
	}
	return 0, false, false
}

// recognizable reports whether a change that looks like the write must be it. A deletion looks like
// every other one, and so may an update of whatever there was.
func (w Write) recognizable() bool { return !w.Delete && w.Expect != ExpectExists }

// made reports whether the change is what the write does.
func (w Write) made(c *change) bool {
	if !w.recognizable() || c.object == nil || c.object.Lease != w.Lease || !bytes.Equal(c.object.Bytes, w.Bytes) {
		return false
	}
	if w.Expect == ExpectAbsent {
		return c.previous == nil
	}
	return c.previous != nil && c.previous.Revision == w.Expect
}
