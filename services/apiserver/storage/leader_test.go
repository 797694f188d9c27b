package storage

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

// Reads and watches go on after the leader is gone, and no acknowledged write is lost.
func TestLeaderIsKilled(t *testing.T) {
	c := etcdtest.New(t, 3)
	s, _ := openStore(t, c.Client(), Config{})
	w := startWatch(t, s, WatchOptions{Kind: "Pod"})
	w.expect("BOOKMARK end")

	revs := make(map[Key]int64)
	for round := range 3 {
		before := podKey("default", fmt.Sprintf("before-%d", round))
		revs[before] = mustCommit(t, s, put(t, before, "", ExpectAbsent))
		leader := c.Leader()
		leader.Kill()

		after := podKey("default", fmt.Sprintf("after-%d", round))
		revs[after] = eventually(t, s, put(t, after, "", ExpectAbsent))
		for key, rev := range revs {
			o, err := s.Get(deadline(t, 15*time.Second), key)
			if err != nil || o.Revision != rev {
				t.Errorf("Get %s gives %+v, %v, want revision %d", key, o, err, rev)
			}
		}
		w.expect("ADDED default/"+before.Name, "ADDED default/"+after.Name)
		leader.Start()
		c.Leader()
	}
}

// eventually creates a key however often it takes, and resolves what became of attempts with an
// unknown outcome.
func eventually(t *testing.T, s *Store, write Write) int64 {
	t.Helper()
	ctx := deadline(t, 30*time.Second)
	for {
		rev, err := s.Commit(ctx, Txn{Writes: []Write{write}})
		var conflict *ConflictError
		switch {
		case err == nil:
			return rev
		case errors.As(err, &conflict):
			return conflict.Revision
		case !errors.Is(err, ErrUnavailable) || ctx.Err() != nil:
			t.Fatal(err)
		}
	}
}

func TestNoQuorum(t *testing.T) {
	c := etcdtest.New(t, 3)
	s, _ := openStore(t, c.Client(), Config{ReadTimeout: time.Second, AttemptTimeout: 300 * time.Millisecond, WriteTimeout: time.Second})
	key := podKey("default", "a")
	rev := mustCommit(t, s, put(t, key, "", ExpectAbsent))
	if _, err := s.Get(deadline(t, 10*time.Second), key); err != nil {
		t.Fatal(err)
	}
	w := startWatch(t, s, WatchOptions{Kind: "Pod"})
	w.expect("ADDED default/a", "BOOKMARK end")
	var killed []*etcdtest.Member
	for _, m := range c.Members()[:2] {
		m.Kill()
		killed = append(killed, m)
	}

	began := time.Now()
	if _, err := s.Get(context.Background(), key); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Get without a quorum: %v, want ErrUnavailable", err)
	}
	if _, err := s.Commit(context.Background(), Txn{Writes: []Write{put(t, key, "", rev)}}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Commit without a quorum: %v, want ErrUnavailable", err)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("a read and a write took %s to fail", took)
	}
	if o, ok := s.GetCached(key); !ok || o.Revision != rev {
		t.Errorf("GetCached gives %+v, %t", o, ok)
	}
	if list, err := s.List(context.Background(), ListOptions{Kind: "Pod", Stale: true}); err != nil || len(list.Objects) != 1 {
		t.Errorf("stale List gives %v, %v", names(list.Objects), err)
	}

	done := make(chan struct{}, len(killed))
	for _, m := range killed {
		go func() { m.Start(); done <- struct{}{} }()
	}
	for range killed {
		<-done
	}
	c.Leader()
	mustGet := deadline(t, 20*time.Second)
	for {
		if _, err := s.Get(mustGet, key); err == nil {
			break
		} else if !errors.Is(err, ErrUnavailable) || mustGet.Err() != nil {
			t.Fatalf("Get after recovery: %v", err)
		}
	}
	b := podKey("default", "b")
	eventually(t, s, put(t, b, "", ExpectAbsent))
	for describe(t, w.next()) != "ADDED default/b" {
	}
}
