package storage

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

// TestConditions holds transactions to keys that they do not write.
func TestConditions(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	on, fence := podKey("", "namespace"), podKey("", "fence")
	made := mustCommit(t, s, put(t, on, "1", ExpectAbsent))
	held := mustCommit(t, s, put(t, fence, "1", ExpectAbsent))
	n := 0
	commit := func(preconditions []Condition, conditions ...Condition) error {
		n++
		_, err := s.Commit(ctx, Txn{Writes: []Write{put(t, podKey("a", fmt.Sprint("p-", n)), "x", ExpectAbsent)}, Conditions: conditions, Preconditions: preconditions})
		return err
	}
	expect := func(err error, exists bool, revision int64) {
		t.Helper()
		var conflict *ConflictError
		if !errors.As(err, &conflict) || conflict.Index != NotWritten || conflict.Key != on || conflict.Exists != exists || conflict.Revision != revision {
			t.Errorf("got %v, want a conflict over the condition at revision %d", err, revision)
		}
	}
	if err := commit(nil, Condition{Key: on, Revision: made}); err != nil {
		t.Error(err)
	}
	if err := commit([]Condition{{Key: fence, CreateRevision: held}}, Condition{Key: on, Revision: made}); err != nil {
		t.Error(err)
	}
	if err := commit([]Condition{{Key: fence, CreateRevision: held - 1}}, Condition{Key: on, Revision: made}); !isPrecondition(err, 0) {
		t.Errorf("a lost election beside a condition that holds: %v", err)
	}
	changed := mustCommit(t, s, put(t, on, "2", made))
	expect(commit(nil, Condition{Key: on, Revision: made}), true, changed)
	expect(commit([]Condition{{Key: fence, CreateRevision: held}}, Condition{Key: on, Revision: made}), true, changed)
	if err := commit(nil, Condition{Key: on, Revision: changed}); err != nil {
		t.Error(err)
	}
	mustCommit(t, s, Write{Key: on, Delete: true, Expect: changed})
	expect(commit(nil, Condition{Key: on, Revision: changed}), false, 0)
	if err := commit(nil, Condition{Key: Key{Kind: "Pod", Name: "a/b"}}); err == nil {
		t.Error("a condition on a key that is malformed is taken")
	}
}

// isPrecondition reports whether a commit failed for the precondition of this index.
func isPrecondition(err error, index int) bool {
	failed, ok := errors.AsType[*PreconditionError](err)
	return ok && failed.Index == index
}

// TestPreconditions checks each expectation in a state where it holds and in one where it does not.
func TestPreconditions(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	there, gone := podKey("", "there"), podKey("", "gone")
	created := mustCommit(t, s, put(t, there, "1", ExpectAbsent))
	modified := mustCommit(t, s, put(t, there, "2", created))
	for i, tt := range []struct {
		condition Condition
		holds     bool
	}{
		{Condition{Key: there, Revision: ExpectExists}, true},
		{Condition{Key: gone, Revision: ExpectExists}, false},
		{Condition{Key: gone, Revision: ExpectAbsent}, true},
		{Condition{Key: there, Revision: ExpectAbsent}, false},
		{Condition{Key: there, Revision: modified}, true},
		{Condition{Key: there, Revision: created}, false},
		{Condition{Key: gone, Revision: modified}, false},
		{Condition{Key: there, CreateRevision: created}, true},
		{Condition{Key: there, CreateRevision: modified}, false},
		{Condition{Key: gone, CreateRevision: created}, false},
	} {
		key := podKey("a", fmt.Sprint("p-", i))
		always := Condition{Key: there, Revision: ExpectExists}
		_, err := s.Commit(ctx, Txn{Writes: []Write{put(t, key, "x", ExpectAbsent)}, Preconditions: []Condition{always, tt.condition}})
		if tt.holds && err != nil || !tt.holds && !isPrecondition(err, 1) {
			t.Errorf("%+v: %v", tt.condition, err)
		}
		if _, err := s.Get(ctx, key); errors.Is(err, ErrNotFound) == tt.holds {
			t.Errorf("%+v: the write: %v", tt.condition, err)
		}
	}
}

// TestConditionsOfGroups changes a key while many transactions that depend on it are committed,
// which go to etcd in groups: none of them happens at the change's revision or after it.
func TestConditionsOfGroups(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 60*time.Second)
	on := podKey("", "namespace")
	for round := range 10 {
		made := mustCommit(t, s, put(t, on, "1", ExpectAbsent))
		var (
			wg      sync.WaitGroup
			mu      sync.Mutex
			latest  int64
			changed int64
		)
		for i := range 200 {
			wg.Go(func() {
				if i == 100 {
					changed = mustCommit(t, s, put(t, on, "2", made))
					return
				}
				revision, err := s.Commit(ctx, Txn{
					Writes:     []Write{put(t, podKey("a", fmt.Sprintf("p-%d-%d", round, i)), "x", ExpectAbsent)},
					Conditions: []Condition{{Key: on, Revision: made}},
				})
				if conflict := (*ConflictError)(nil); err != nil && !errors.As(err, &conflict) {
					t.Error(err)
				}
				mu.Lock()
				latest = max(latest, revision)
				mu.Unlock()
			})
		}
		wg.Wait()
		if latest >= changed {
			t.Fatalf("the key changed at revision %d, and a transaction that depends on it happened at %d", changed, latest)
		}
		mustCommit(t, s, Write{Key: on, Delete: true, Expect: changed})
	}
}
