package storage

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

// leaseCount is how many leases etcd holds.
func leaseCount(t *testing.T, cli *clientv3.Client) int {
	t.Helper()
	resp, err := cli.Leases(deadline(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Leases)
}

func TestGrantIsIdempotent(t *testing.T) {
	const id = 0x7abc_0001_0002_0003
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 60*time.Second)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			got, ttl, err := s.LeaseGrant(ctx, id, 60, "me")
			if err != nil || got != id || ttl != 60 {
				t.Errorf("LeaseGrant gives %x, %d, %v", got, ttl, err)
			}
		})
	}
	all.Wait()
	if owner, err := s.LeaseOwner(ctx, id); err != nil || owner != "me" {
		t.Errorf("the owner is %q, %v", owner, err)
	}
	if n := leaseCount(t, c.Client()); n != 1 {
		t.Errorf("etcd holds %d leases", n)
	}
	if _, _, err := s.LeaseGrant(ctx, id, 60, "another"); !errors.Is(err, ErrLeaseTaken) {
		t.Errorf("a lease of another owner: %v", err)
	}
	if owner, err := s.LeaseOwner(ctx, id); err != nil || owner != "me" {
		t.Errorf("then the owner is %q, %v", owner, err)
	}
	if err := s.LeaseRevoke(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, ttl, err := s.LeaseGrant(ctx, id, 30, "another"); err != nil || ttl != 30 {
		t.Errorf("after it was revoked: %d, %v", ttl, err)
	}
}

// TestGrantGoesOn grants leases that an earlier attempt left without an owner, and one that was not
// granted by this API.
func TestGrantGoesOn(t *testing.T) {
	const half, foreign = 4711, 4712
	c := etcdtest.New(t, 1)
	cli := c.Client()
	s, _ := openStore(t, cli, Config{})
	ctx := deadline(t, 60*time.Second)
	grant := func(id int64) {
		t.Helper()
		if _, err := pb.NewLeaseClient(cli.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 60}); err != nil {
			t.Fatal(err)
		}
	}
	grant(half) // the process ended before it recorded the owner
	if _, ttl, err := s.LeaseGrant(ctx, half, 20, "me"); err != nil || ttl != 60 {
		t.Errorf("a lease without an owner: %d, %v, want the time to live that it has", ttl, err)
	}
	if owner, err := s.LeaseOwner(ctx, half); err != nil || owner != "me" {
		t.Errorf("its owner is %q, %v", owner, err)
	}

	grant(foreign)
	if _, err := cli.Put(ctx, "/xebec/services/apiserver/master-1", "", clientv3.WithLease(foreign)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.LeaseGrant(ctx, foreign, 60, "me"); !errors.Is(err, ErrLeaseTaken) {
		t.Errorf("the lease of a service's registration: %v", err)
	}
	if _, err := s.LeaseOwner(ctx, foreign); !errors.Is(err, ErrLeaseNotFound) {
		t.Errorf("it has an owner now: %v", err)
	}
}

// TestGrantWhoseAnswerIsLost repeats a grant of which only etcd knows.
func TestGrantWhoseAnswerIsLost(t *testing.T) {
	const id = 4711
	c := etcdtest.New(t, 1)
	etcd := newSlowEtcd(t, c)
	cut, _ := openStore(t, etcd.Client, Config{WriteTimeout: 3 * time.Second})
	s, _ := openStore(t, c.Client(), Config{})
	etcd.lines[0].Silence()
	short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, _, err := cut.LeaseGrant(short, id, 60, "me"); !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("without an answer: %v", err)
	}
	if n := leaseCount(t, c.Client()); n != 1 {
		t.Fatalf("etcd holds %d leases", n)
	}
	if _, ttl, err := s.LeaseGrant(deadline(t, 30*time.Second), id, 60, "me"); err != nil || ttl != 60 {
		t.Errorf("repeated: %d, %v", ttl, err)
	}
	if n := leaseCount(t, c.Client()); n != 1 {
		t.Errorf("then etcd holds %d leases", n)
	}
}
