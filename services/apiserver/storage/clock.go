package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// The clock tells at which time which revision was: a key whose value is the time at which it was written. etcd keeps its
// past values for as long as it keeps the past of everything else, so nothing has to be cleaned up. While there is
// nothing to tell apart, because nothing was written, it is not written either: an idle cluster's disks rest.
const clockKey = "/xebec/clock"

// ClockPrecision is how exactly a time names a revision.
const ClockPrecision = 2 * time.Second

// runClock keeps the clock until ctx ends, at each of ticks. All stores on one etcd do: whichever comes first writes, the
// others see that.
func (s *Store) runClock(ctx context.Context, ticks <-chan time.Time) {
	var told int64 // the revision of the clock as last seen
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		if s.cache.at() <= told {
			continue
		}
		revision, err := s.tick(ctx, told)
		switch {
		case err == nil:
			told = revision
		case ctx.Err() == nil:
			s.log.Debug("The clock of revisions was not written", zap.Error(err))
		}
	}
}

// tick writes the clock unless another store has since revision told, and returns the clock's revision.
func (s *Store) tick(ctx context.Context, told int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AttemptTimeout)
	defer cancel()
	resp, err := s.cli.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(clockKey), "=", told)).
		Then(clientv3.OpPut(clockKey, time.Now().UTC().Format(time.RFC3339Nano))).
		Else(clientv3.OpGet(clockKey, clientv3.WithKeysOnly())).
		Commit()
	if err != nil {
		return 0, err
	}
	if resp.Succeeded {
		return resp.Header.Revision, nil
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		return kvs[0].ModRevision, nil
	}
	return 0, nil // etcd was restored from a time before the clock
}

// RevisionAt returns the revision that the objects were at, at a time: up to ClockPrecision before it, and as the clocks
// of the masters told it. ErrCompacted when that is not known any more, ErrFutureTime when it is yet to come.
func (s *Store) RevisionAt(ctx context.Context, at time.Time) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	if at.After(time.Now()) {
		return 0, fmt.Errorf("revision at %s: %w", at.Format(time.RFC3339), ErrFutureTime)
	}
	now, err := s.etcdRevision(ctx)
	if err != nil {
		return 0, fmt.Errorf("revision at %s: %w", at.Format(time.RFC3339), err)
	}
	// Binary search for the last value of the clock that is not after the time.
	var found int64
	for low, high := int64(1), now; low <= high; {
		middle := low + (high-low)/2
		told, revision, err := s.clockAt(ctx, middle)
		switch {
		case errors.Is(err, ErrCompacted), errors.Is(err, ErrNotFound):
			low = middle + 1
		case err != nil:
			return 0, fmt.Errorf("revision at %s: %w", at.Format(time.RFC3339), err)
		case told.After(at):
			high = revision - 1
		default:
			found, low = revision, middle+1
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("revision at %s: %w", at.Format(time.RFC3339), ErrCompacted)
	}
	return found, nil
}

// clockAt reads the clock as it was at a revision: the time it told, and the revision at which that was written.
func (s *Store) clockAt(ctx context.Context, revision int64) (time.Time, int64, error) {
	resp, err := s.cli.Get(ctx, clockKey, clientv3.WithRev(revision), clientv3.WithSerializable())
	if errors.Is(err, rpctypes.ErrFutureRev) {
		// A member that lags behind the one that named the newest revision; a quorum knows.
		resp, err = s.cli.Get(ctx, clockKey, clientv3.WithRev(revision))
	}
	if err != nil {
		return time.Time{}, 0, readError(err)
	}
	if len(resp.Kvs) == 0 {
		return time.Time{}, 0, ErrNotFound
	}
	told, err := time.Parse(time.RFC3339Nano, string(resp.Kvs[0].Value))
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("%s at revision %d: %w", clockKey, revision, err)
	}
	return told, resp.Kvs[0].ModRevision, nil
}
