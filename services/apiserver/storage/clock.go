package storage

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// The clock tells at which time which revision was: a key whose value is the time at which it was
// written. etcd keeps its past values for as long as it keeps the past of everything else (see
// past.go), so nothing has to be cleaned up. While there is nothing to tell apart, because nothing
// was written, it is not written either: an idle cluster's disks rest.
const clockKey = "/xebec/clock"

// ClockPrecision is how exactly a time names a revision.
const ClockPrecision = 2 * time.Second

// runClock keeps the clock until ctx ends, at each of ticks. All stores on one etcd do: whichever
// comes first writes, the others see that.
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

// tick writes the clock unless another store has since revision told, and returns the clock's
// revision.
func (s *Store) tick(ctx context.Context, told int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	resp, err := hedged(ctx, s.writes, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(clockKey), "=", told)).
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
