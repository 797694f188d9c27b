package discovery

import (
	"context"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

// TestAnswersSlowerThanTheLease registers an instance where every answer of etcd takes longer than
// the lease lasts at first. The lease becomes longer until the registration holds, and short again,
// without a gap, when etcd is quick.
func TestAnswersSlowerThanTheLease(t *testing.T) {
	const answer, calm = 5500 * time.Millisecond, 3 * time.Second
	etcd := etcdtest.New(t, 1)
	line := etcdtest.NewLine(t, etcd.Endpoints()[0])
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{line.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.Get(t.Context(), "/"); err != nil {
		t.Fatal(err) // connects
	}
	changes := make(chan bool, 64)
	instance := Instance{Service: "apiserver", Host: "master-1", Addr: "127.0.0.1:7001"}
	r, err := newRegistration(client, instance, zaptest.NewLogger(t), func(listed bool) { changes <- listed }, calm)
	if err != nil {
		t.Fatal(err)
	}
	line.Delay(answer)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(func() { line.Delay(0); cancel() })
	running.Go(func() { r.run(ctx) })

	direct := etcd.Client()
	// granted is the time to live of the lease that the instance is listed under, 0 while it is not
	// listed.
	granted := func() time.Duration {
		t.Helper()
		got, err := direct.Get(ctx, instance.key())
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Kvs) == 0 {
			return 0
		}
		lease, err := direct.TimeToLive(ctx, clientv3.LeaseID(got.Kvs[0].Lease))
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(lease.GrantedTTL) * time.Second
	}
	listed := false
	follow := func() {
		for len(changes) > 0 {
			listed = <-changes
		}
	}
	// The registration holds when it has been there for longer than it takes to renew it.
	limit := time.After(3 * time.Minute)
	for held := time.Now(); time.Since(held) < 15*time.Second; {
		if follow(); !listed || granted() <= 0 {
			held = time.Now()
		}
		select {
		case <-limit:
			t.Fatal("the registration does not hold")
		case <-time.After(100 * time.Millisecond):
		}
	}
	if ttl := granted(); ttl <= TTL {
		t.Errorf("the lease lasts %v, want more", ttl)
	}
	line.Delay(0)
	leases := func() int {
		t.Helper()
		got, err := direct.Leases(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(got.Leases)
	}
	// The longer lease is revoked after the instance is listed under the shorter one.
	for granted() != TTL || leases() != 1 {
		select {
		case <-limit:
			t.Fatalf("the lease lasts %v, one of %d, want %v, the only one", granted(), leases(), TTL)
		case <-time.After(50 * time.Millisecond):
		}
	}
	select {
	case now := <-changes:
		t.Errorf("the registration became %v while its lease was replaced", now)
	default:
	}
}
