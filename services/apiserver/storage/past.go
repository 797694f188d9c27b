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

// leastPast is the shortest past that is kept, however large etcd is: lists of several pages and
// watches that resume require it.
const leastPast = time.Minute

// compactEvery is the interval of compactions.
const compactEvery = time.Minute

// PastError says that a time can no longer be read. It is an ErrCompacted.
type PastError struct {
	// Oldest is the oldest time that can be read, zero when none is known.
	Oldest time.Time
}

// Error says what can be read.
func (e *PastError) Error() string {
	if e.Oldest.IsZero() {
		return ErrCompacted.Error()
	}
	return fmt.Sprintf("%v: the oldest time that can be read is %s", ErrCompacted, e.Oldest.UTC().Format(time.RFC3339))
}

// Unwrap returns ErrCompacted.
func (e *PastError) Unwrap() error { return ErrCompacted }

// runCompaction compacts etcd's past at each tick until ctx ends. All stores on one etcd do: etcd
// keeps the shortest of their pasts.
func (s *Store) runCompaction(ctx context.Context, ticks <-chan time.Time) {
	span, failing := s.cfg.KeepPast, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		used, err := s.usedBytes(ctx)
		if err == nil {
			span = s.span(span, used)
			err = s.compact(ctx, time.Now().Add(-span))
		}
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			s.log.Warn("Failed to compact etcd, which grows unless it compacts by itself", zap.Error(err))
		case err == nil && failing:
			s.log.Info("Compaction succeeds again")
		}
		failing = err != nil
	}
}

// span is how much of the past to keep, given how much was kept and the bytes that etcd uses: half
// as much where these are too many, and slowly more again when there is room.
func (s *Store) span(span time.Duration, used int64) time.Duration {
	switch {
	case used > s.cfg.KeepPastBytes:
		return max(span/2, leastPast)
	case used < s.cfg.KeepPastBytes/4*3:
		return min(span+span/4, s.cfg.KeepPast)
	}
	return span
}

// usedBytes is how much of its database etcd uses, on the first member that answers.
func (s *Store) usedBytes(ctx context.Context) (int64, error) {
	var errs []error
	for _, endpoint := range s.cli.Endpoints() {
		attempt, cancel := context.WithTimeout(ctx, s.reads.limit())
		status, err := s.cli.Status(attempt, endpoint)
		cancel()
		if err == nil {
			return status.DbSizeInUse, nil
		}
		errs = append(errs, err)
	}
	return 0, fmt.Errorf("size of etcd: %w", errors.Join(errs...))
}

// compact makes etcd forget the revisions before a time, except those that were current then.
func (s *Store) compact(ctx context.Context, before time.Time) error {
	revision, err := s.RevisionAt(ctx, before)
	if errors.Is(err, ErrCompacted) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	if _, err = s.cli.Compact(ctx, revision); err == nil || errors.Is(err, rpctypes.ErrCompacted) {
		return nil
	}
	return fmt.Errorf("compact to revision %d: %w", revision, err)
}

// RevisionAt returns the revision of the objects at a time: up to ClockPrecision before it, by the
// clocks of the masters. A *PastError when that is no longer known, ErrFutureTime when the time is
// in the future.
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
	// Binary search for the last value of the clock that is not after the time. The last one that is
	// after it is the oldest of all when none is found.
	var found int64
	var oldest time.Time
	for low, high := int64(1), now; low <= high; {
		middle := low + (high-low)/2
		told, revision, err := s.clockAt(ctx, middle)
		switch {
		case errors.Is(err, ErrCompacted), errors.Is(err, ErrNotFound):
			low = middle + 1
		case err != nil:
			return 0, fmt.Errorf("revision at %s: %w", at.Format(time.RFC3339), err)
		case told.After(at):
			high, oldest = revision-1, told
		default:
			found, low = revision, middle+1
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("revision at %s: %w", at.Format(time.RFC3339), &PastError{Oldest: oldest})
	}
	return found, nil
}

// Oldest returns the oldest time that RevisionAt finds, zero when it finds none.
func (s *Store) Oldest(ctx context.Context) (time.Time, error) {
	_, err := s.RevisionAt(ctx, time.Unix(0, 0))
	if past, ok := errors.AsType[*PastError](err); ok {
		return past.Oldest, nil
	}
	return time.Time{}, err
}

// clockAt reads the clock as it was at a revision: its time, and the revision at which that was
// written.
func (s *Store) clockAt(ctx context.Context, revision int64) (time.Time, int64, error) {
	resp, err := s.read(ctx, clockKey, clientv3.WithRev(revision), clientv3.WithSerializable())
	if errors.Is(err, rpctypes.ErrFutureRev) {
		// A member that lags behind the one that named the newest revision; a quorum knows.
		resp, err = s.read(ctx, clockKey, clientv3.WithRev(revision))
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
