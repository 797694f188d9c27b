package storage

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

// slowEtcd is a client of etcd over slow lines, one to each member, that counts its requests by
// method.
type slowEtcd struct {
	*clientv3.Client
	lines []*etcdtest.Line

	mu       sync.Mutex
	requests map[string]int
}

func newSlowEtcd(t *testing.T, c *etcdtest.Cluster) *slowEtcd {
	t.Helper()
	e := &slowEtcd{requests: map[string]int{}}
	var addresses []string
	for _, endpoint := range c.Endpoints() {
		line := etcdtest.NewLine(t, endpoint)
		e.lines = append(e.lines, line)
		addresses = append(addresses, line.Endpoint())
	}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: addresses, Logger: zap.NewNop(), Context: context.Background(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(e.count)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	e.Client = cli
	return e
}

func (e *slowEtcd) count(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	e.mu.Lock()
	e.requests[method]++
	e.mu.Unlock()
	return invoke(ctx, method, req, reply, conn, opts...)
}

// counted returns how many requests of a method were made since the last call.
func (e *slowEtcd) counted(method string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer delete(e.requests, method)
	return e.requests[method]
}

// slow delays every answer.
func (e *slowEtcd) slow(delay time.Duration) {
	for _, l := range e.lines {
		l.Delay(delay)
	}
}

const (
	txnMethod   = "/etcdserverpb.KV/Txn"
	rangeMethod = "/etcdserverpb.KV/Range"
)

// epochChangesSoFar reads, from etcd itself, how often the epoch was changed.
func epochChangesSoFar(t *testing.T, c *etcdtest.Cluster) int64 {
	t.Helper()
	resp, err := c.Client().Get(deadline(t, 10*time.Second), epochKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return resp.Kvs[0].Version
}

// TestSlowEtcdIsWaitedFor delays every answer of etcd by more than an attempt's least time. Reads,
// writes and renewals become slow and do not fail, and do not multiply.
func TestSlowEtcdIsWaitedFor(t *testing.T) {
	const delay, commits = 1200 * time.Millisecond, 50
	c := etcdtest.New(t, 1)
	etcd := newSlowEtcd(t, c)
	s, _ := openStore(t, etcd.Client, Config{WriteAttempt: 500 * time.Millisecond})
	ctx := deadline(t, 2*time.Minute)
	lease, err := c.Client().Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		mustCommit(t, s, put(t, podKey("default", fmt.Sprint("quick-", i)), "", ExpectAbsent))
	}
	if _, err := s.LeaseKeepAlive(ctx, int64(lease.ID)); err != nil {
		t.Fatal(err)
	}

	changes := epochChangesSoFar(t, c)
	etcd.counted(txnMethod)
	etcd.counted(rangeMethod)
	etcd.slow(delay)
	began := time.Now()
	var all sync.WaitGroup
	for i := range commits {
		all.Go(func() {
			key := podKey("default", fmt.Sprint("slow-", i))
			if _, err := s.Commit(ctx, Txn{Writes: []Write{put(t, key, "", ExpectAbsent)}}); err != nil {
				t.Errorf("commit %d: %v", i, err)
			}
		})
		all.Go(func() {
			if _, err := s.List(ctx, ListOptions{Kind: "Pod"}); err != nil {
				t.Errorf("list %d: %v", i, err)
			}
		})
		all.Go(func() {
			if ttl, err := s.LeaseKeepAlive(ctx, int64(lease.ID)); err != nil || ttl != 60 {
				t.Errorf("renewal %d: %d, %v", i, ttl, err)
			}
		})
	}
	all.Wait()
	txns, reads, changed := etcd.counted(txnMethod), etcd.counted(rangeMethod), epochChangesSoFar(t, c)-changes
	t.Logf("all took %v; %d transactions, %d reads, %d changes of the epoch", time.Since(began), txns, reads, changed)
	if txns > commits || reads > 10 || changed > 2 {
		t.Errorf("%d transactions, %d reads and %d changes of the epoch for %d commits", txns, reads, changed, commits)
	}

	// The time that etcd takes is known now.
	changes = epochChangesSoFar(t, c)
	for i := range 3 {
		name := fmt.Sprint("known-", i)
		mustCommit(t, s, put(t, podKey("default", name), "", ExpectAbsent))
		if _, err := s.Get(ctx, podKey("default", name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if changed := epochChangesSoFar(t, c) - changes; changed > 0 {
		t.Errorf("%d changes of the epoch while etcd was as slow as before", changed)
	}

	// Once it is fast again, the timeout returns to its minimum.
	etcd.slow(0)
	for i := 0; s.writes.limit() > s.writes.floor; i++ {
		if i == 100 {
			t.Fatalf("after %d quick writes an attempt still gets %v", i, s.writes.limit())
		}
		mustCommit(t, s, put(t, podKey("default", fmt.Sprint("again-", i)), "", ExpectAbsent))
	}
}

// TestDeadMemberIsNoticedAfterSlowTimes has etcd be slow for a while, and then its leader answer
// its clients no more.
func TestDeadMemberIsNoticedAfterSlowTimes(t *testing.T) {
	c := etcdtest.New(t, 3)
	etcd := newSlowEtcd(t, c)
	s, _ := openStore(t, etcd.Client, Config{})
	commits := 0
	commit := func() {
		t.Helper()
		commits++
		key := podKey("default", fmt.Sprint("p-", commits))
		if _, err := s.Commit(deadline(t, 30*time.Second), Txn{Writes: []Write{put(t, key, "", ExpectAbsent)}}); err != nil {
			t.Fatal(err)
		}
	}
	commit()
	etcd.slow(time.Second)
	commit()
	commit()
	if s.writes.limit() < time.Second {
		t.Errorf("an attempt gets %v while etcd takes a second", s.writes.limit())
	}
	etcd.slow(0)
	for i := 0; s.writes.limit() > s.writes.floor; i++ {
		if i == 100 {
			t.Fatalf("after %d quick writes an attempt still gets %v", i, s.writes.limit())
		}
		commit()
	}
	// The balancer takes turns, so some of these meet the member that answers no more.
	leader := slices.Index(c.Members(), c.Leader())
	etcd.lines[leader].Silence()
	longest := time.Duration(0)
	for range 9 {
		began := time.Now()
		commit()
		longest = max(longest, time.Since(began))
	}
	t.Logf("the longest write beside a dead member took %v", longest)
	if longest > 2500*time.Millisecond {
		t.Errorf("the longest write beside a dead member took %v, which is as if etcd was still slow", longest)
	}
}
