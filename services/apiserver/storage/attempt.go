package storage

import (
	"bytes"
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A write that a member of etcd has handed to a leader that died gets no answer for seconds, though the others may have
// a new leader long since. Trying again at once must not make the write happen twice, and the first attempt may still be
// on its way. So every transaction is conditional on the epoch, a key that all stores share, being unchanged. When an
// attempt is not answered in time, the store changes the epoch: from then on the attempt can't happen any more. What
// it did before that is in the history, and if it did nothing it is safe to try again.

const (
	// epochKey's modification revision is the epoch. Absent, it is 0.
	epochKey = Root + "epoch"

	// bumpTimeout bounds one attempt to change the epoch. That is idempotent, and tried until it works: short, for
	// until a new leader is elected every attempt may be lost.
	bumpTimeout = 250 * time.Millisecond
	// retryPause is the time between attempts that failed at once.
	retryPause = 25 * time.Millisecond
)

// attempt makes one attempt at a transaction, in the given time. done is false when the epoch had changed: then nothing
// was written.
func (s *Store) attempt(ctx context.Context, txn Txn, ops txnOps, timeout time.Duration) (revision int64, done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	epoch := s.epoch.Load()
	ops.ifs[0] = clientv3.Compare(clientv3.ModRevision(epochKey), "=", epoch)
	resp, err := s.cli.Txn(ctx).If(ops.ifs...).Then(ops.then...).Else(ops.otherwise...).Commit()
	if err != nil {
		return 0, true, writeError(err)
	}
	if resp.Succeeded {
		return resp.Header.Revision, true, nil
	}
	if s.learnEpoch(epoch, resp.Responses[0]) {
		return 0, false, nil
	}
	return 0, true, txn.explain(resp.Responses[1:])
}

// settle makes sure that attempts at a transaction that have not been answered can't happen any more, and finds out
// whether one did, at a revision after since. The error is ErrUnknownOutcome when that can't be told.
func (s *Store) settle(ctx context.Context, txn Txn, since int64, cause error) (revision int64, happened bool, err error) {
	epoch, err := s.bumpEpoch(ctx)
	if err == nil {
		err = s.awaitRevision(ctx, epoch)
	}
	if err != nil {
		return 0, false, fmt.Errorf("%w: %w", cause, err)
	}
	revision, happened, known := s.cache.trace(txn, since)
	if !known {
		return 0, false, cause
	}
	return revision, happened, nil
}

// settleNoSpace finds out what became of a transaction that etcd answered with ErrNoSpace. The one that takes the
// database over its quota is applied all the same (quotaApplierV3 in etcd's server), and only those after it are
// refused. Its outcome is decided by then: a linearizable look tells.
func (s *Store) settleNoSpace(ctx context.Context, txn Txn, since int64, cause error) (revision int64, err error) {
	if err := s.current(ctx); err != nil {
		return 0, fmt.Errorf("%w: %w: %w", cause, ErrUnknownOutcome, err)
	}
	if revision, happened, _ := s.cache.trace(txn, since); happened {
		return revision, nil
	}
	return 0, cause
}

// bumpEpoch changes the epoch and returns the new one.
func (s *Store) bumpEpoch(ctx context.Context) (int64, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, bumpTimeout)
		resp, err := s.cli.Put(attempt, epochKey, "")
		cancel()
		if err == nil {
			// A later epoch may be there already, made by another store or by an attempt that was thought lost. The
			// next transaction will tell.
			s.epoch.Store(resp.Header.Revision)
			return resp.Header.Revision, nil
		}
		if !transient(err) {
			return 0, writeError(err)
		}
		if !pause(ctx, retryPause) {
			return 0, writeError(err)
		}
	}
}

// pause waits, and returns false when ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// trace looks for a transaction among the changes after a revision. known is false when the history does not tell
// whether it happened.
func (c *cache) trace(txn Txn, since int64) (revision int64, happened, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, w := range txn.Writes {
		k := c.kinds[groupKind{w.Key.Group, w.Key.Kind}]
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

// recognizable reports whether a change that looks like the write must be it. A deletion looks like every other one, and
// so may an update of whatever there was.
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
