package storage

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// The clock maps times to revisions: a key whose value is the time at which it was written. etcd
// keeps its past values for as long as it keeps the past of all other keys (see past.go), so that
// nothing has to be cleaned up. While no other key is written, the clock is not written either: an
// idle cluster does not write to its disks.
const clockKey = "/xebec/clock"

// ClockPrecision is how exactly a time names a revision.
const ClockPrecision = 2 * time.Second

// runClock writes the clock at each tick until ctx ends. All stores on one etcd do: the first one
// writes, and the others see that.
func (s *Store) runClock(ctx context.Context, ticks <-chan time.Time) {
	var seen int64 // the revision of the clock as last seen
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		if s.cache.at() <= seen {
			continue
		}
		revision, err := s.tick(ctx, seen)
		switch {
		case err == nil:
			seen = revision
		case ctx.Err() == nil:
			s.log.Debug("Failed to write the clock of revisions", zap.Error(err))
		}
	}
}

// tick writes the clock unless another store has since revision seen, and returns the clock's
// revision.
func (s *Store) tick(ctx context.Context, seen int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	resp, err := hedged(ctx, s.writes, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(clockKey), "=", seen)).
			Then(clientv3.OpPut(clockKey, time.Now().UTC().Format(time.RFC3339Nano))).
			Else(clientv3.OpGet(clockKey, clientv3.WithKeysOnly())).
			Commit()
	})
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
