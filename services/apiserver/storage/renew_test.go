package storage

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

func (r *renewals) current() *renewalStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stream
}

// TestCancelledRenewals has callers give up while etcd is asked: the others keep their stream, and
// their answers.
func TestCancelledRenewals(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{AttemptTimeout: time.Minute})
	ctx := deadline(t, 30*time.Second)
	var ids []int64
	for i := range 3 {
		id, _, err := s.LeaseGrant(ctx, 0, int64(100+i), "me")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if _, err := s.LeaseKeepAlive(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	stream := s.renewals.current()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			for range 100 {
				_, _ = s.LeaseKeepAlive(gone, id) // answered or not: which is chance
				if ttl, err := s.LeaseKeepAlive(ctx, id); err != nil || ttl != int64(100+i) {
					t.Errorf("lease %d: renewal gives %d, %v, want %d", i, ttl, err, 100+i)
				}
			}
		})
	}
	wg.Wait()
	if s.renewals.current() != stream {
		t.Error("a caller that gave up ended the stream of all")
	}
}

// TestSlowRenewals puts a slow line before etcd: a member that answers late, but answers, keeps its
// stream. When the line is silent the stream is given up.
func TestSlowRenewals(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 60*time.Second)
	id, _, err := s.LeaseGrant(ctx, 0, 100, "me")
	if err != nil {
		t.Fatal(err)
	}
	const limit, delay, every = 3 * time.Second, 4 * time.Second, 100 * time.Millisecond
	line := etcdtest.NewLine(t, c.Endpoints()[0])
	line.Delay(delay)
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{line.Endpoint()}, Context: ctx})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	r := renewals{cli: cli, timeout: newAdaptiveTimeout(20*time.Second, time.Minute)}
	first, err := r.renew(ctx, id) // the connection is made
	if err != nil || first != 100 {
		t.Fatalf("got %d, %v", first, err)
	}
	stream := r.current()
	var wg sync.WaitGroup
	var silenced atomic.Bool
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range 120 {
		<-tick.C
		if i*int(every) == 2*int(delay) {
			// Each answer takes longer than this. Others come meanwhile.
			r.timeout.mu.Lock()
			r.timeout.floor, r.timeout.ceiling = limit, limit
			r.timeout.mu.Unlock()
		}
		wg.Go(func() {
			// What is under way when the line falls silent fails, in a way that is tried again.
			if ttl, err := r.renew(ctx, id); err != nil && (!silenced.Load() || !transient(err)) || err == nil && ttl != 100 {
				t.Errorf("got %d, %v", ttl, err)
			}
		})
	}
	if r.current() != stream {
		t.Error("a member that is slow lost its stream")
	}
	silenced.Store(true)
	line.Silence()
	wg.Wait()
	if _, err := r.renew(ctx, id); !errors.Is(err, errSilent) || !transient(err) {
		t.Errorf("a silent member: %v", err)
	}
	if r.current() == stream {
		t.Error("a silent member keeps its stream")
	}
}
