package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

func TestTake(t *testing.T) {
	member := func(size int, fence string, keys ...string) *groupMember {
		m := &groupMember{ctx: t.Context(), size: size}
		for _, k := range keys {
			m.txn.Writes = append(m.txn.Writes, Write{Key: podKey("d", k)})
		}
		if fence != "" {
			m.txn.Preconditions = []Condition{{Key: podKey("d", fence), CreateRevision: 1}}
		}
		return m
	}
	gone := func(m *groupMember) *groupMember {
		ended, end := context.WithCancel(t.Context())
		end()
		m.ctx = ended
		return m
	}
	many := make([]*groupMember, groupCommits+5)
	for i := range many {
		many[i] = member(1, "", fmt.Sprint("k", i))
	}
	for name, tc := range map[string]struct {
		waiting []*groupMember
		maxOps  int
		want    []int // sizes of the groups
	}{
		"none":           {nil, 10000, nil},
		"other keys":     {[]*groupMember{member(1, "", "a"), member(1, "", "b"), member(1, "", "c", "d")}, 10000, []int{3}},
		"gone":           {[]*groupMember{gone(member(1, "", "a")), member(1, "", "a"), gone(member(1, "", "b"))}, 10000, []int{1}},
		"the same key":   {[]*groupMember{member(1, "", "a"), member(1, "", "a"), member(1, "", "b")}, 10000, []int{2, 1}},
		"no overtaking":  {[]*groupMember{member(1, "", "a"), member(1, "", "a", "b"), member(1, "", "b")}, 10000, []int{1, 1, 1}},
		"the same fence": {[]*groupMember{member(1, "f", "a"), member(1, "f", "b")}, 10000, []int{2}},
		"fence written":  {[]*groupMember{member(1, "f", "a"), member(1, "", "f"), member(1, "f", "b")}, 10000, []int{1, 1, 1}},
		"too many bytes": {[]*groupMember{member(groupBytes, "", "a"), member(1, "", "b"), member(1, "", "c")}, 10000, []int{1, 2}},
		"too many":       {many, 10000, []int{groupCommits, 5}},
		"few operations": {many[:5], 3 * groupOpsEach, []int{3, 2}},
		"one operation":  {many[:2], 1, []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			g := groups{waiting: tc.waiting}
			var got []int
			for group := g.take(tc.maxOps); len(group) > 0; group = g.take(tc.maxOps) {
				got = append(got, len(group))
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("groups are %v, want %v", got, tc.want)
			}
		})
	}
}

// Commits that share a request succeed and fail each on its own.
func TestGroupedCommits(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	ctx := deadline(t, 60*time.Second)
	taken, fence := podKey("default", "taken"), podKey("default", "fence")
	atTaken := mustCommit(t, s, put(t, taken, "", ExpectAbsent))
	atFence := mustCommit(t, s, put(t, fence, "", ExpectAbsent))
	var wg sync.WaitGroup
	for i := range 400 {
		key := podKey("default", fmt.Sprint("p-", i))
		txn := Txn{Writes: []Write{put(t, key, "", ExpectAbsent)}, Preconditions: []Condition{{Key: fence, CreateRevision: atFence}}}
		wg.Go(func() {
			var want error
			switch i % 8 {
			case 3:
				txn.Writes = append(txn.Writes, put(t, taken, "", ExpectAbsent))
				want = &ConflictError{Index: 1, Key: taken, Exists: true, Revision: atTaken}
			case 5:
				txn.Preconditions[0].CreateRevision--
				want = &PreconditionError{}
			case 7:
				if i%40 == 7 {
					txn.Writes[0].Lease = 4711
					want = ErrLeaseNotFound
				}
			}
			rev, err := s.Commit(ctx, txn)
			var conflict, wantConflict *ConflictError
			var failed *PreconditionError
			switch {
			case want == nil && err != nil, want != nil && err == nil:
				t.Errorf("commit %d: error is %v, want %v", i, err, want)
				return
			case errors.As(want, &wantConflict):
				if !errors.As(err, &conflict) || *conflict != *wantConflict {
					t.Errorf("commit %d: error is %v, want %v", i, err, want)
				}
			case errors.As(want, &failed):
				if !isPrecondition(err, 0) {
					t.Errorf("commit %d: error is %v, want a failed precondition", i, err)
				}
			case !errors.Is(err, want):
				t.Errorf("commit %d: error is %v, want %v", i, err, want)
			}
			o, err := s.Get(ctx, key)
			if want == nil && (err != nil || o.Revision != rev) || want != nil && !errors.Is(err, ErrNotFound) {
				t.Errorf("commit %d at revision %d failed with %v; the object is %+v, %v", i, rev, want, o, err)
			}
		})
	}
	wg.Wait()
}

// TestCommitOfACallerWhoLeft has callers give up while their commits wait for a place: these are
// not sent.
func TestCommitOfACallerWhoLeft(t *testing.T) {
	c := etcdtest.New(t, 1)
	etcd := newSlowEtcd(t, c)
	s, _ := openStore(t, etcd.Client, Config{})
	mustCommit(t, s, put(t, podKey("default", "first"), "", ExpectAbsent))
	etcd.slow(time.Second)
	var all sync.WaitGroup
	commit := func(ctx context.Context, name string) error {
		_, err := s.Commit(ctx, Txn{Writes: []Write{put(t, podKey("default", name), "", ExpectAbsent)}})
		return err
	}
	for i := range groupsInFlight {
		all.Go(func() {
			if err := commit(deadline(t, 30*time.Second), fmt.Sprint("sent-", i)); err != nil {
				t.Error(err)
			}
		})
	}
	eventuallyTrue(t, func() bool {
		s.groups.mu.Lock()
		defer s.groups.mu.Unlock()
		return s.groups.inFlight == groupsInFlight
	})
	leaving, leave := context.WithCancel(t.Context())
	for i := range 20 {
		all.Go(func() {
			if err := commit(leaving, fmt.Sprint("left-", i)); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("a commit that was not sent: %v, want that nothing was written", err)
			}
		})
	}
	eventuallyTrue(t, func() bool {
		s.groups.mu.Lock()
		defer s.groups.mu.Unlock()
		return len(s.groups.waiting) == 20
	})
	leave()
	all.Wait()
	etcd.slow(0)
	if err := commit(deadline(t, 30*time.Second), "last"); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(deadline(t, 30*time.Second), ListOptions{Kind: "Pod"})
	if err != nil || len(list.Objects) != groupsInFlight+2 {
		t.Errorf("the objects are %v, %v; want none of a caller who left", names(list.Objects), err)
	}
}

func eventuallyTrue(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := deadline(t, 30*time.Second); !condition(); <-tick.C {
		if ctx.Err() != nil {
			t.Fatal("the condition did not come true in 30 s")
		}
	}
}
