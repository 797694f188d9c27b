package storage

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/etcdtest"
)

// TestSettle finds out the outcome of attempts that were not answered.
func TestSettle(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	other, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	lost := errors.Join(ErrUnavailable, ErrUnknownOutcome)

	key := func(name string) Key { return podKey("default", name) }
	revs := make(map[string]int64)
	for _, name := range []string{"updated", "not-updated", "deleted", "overtaken", "both"} {
		revs[name] = mustCommit(t, s, put(t, key(name), "", ExpectAbsent))
	}
	remove := func(name string) Write {
		return Write{Key: key(name), Delete: true, Expect: ExpectExists}
	}
	for name, tc := range map[string]struct {
		txn      Txn
		attempt  bool // whether the lost attempt reached etcd
		then     []Write
		happened bool
		known    bool
	}{
		"create":              {Txn{Writes: []Write{put(t, key("a"), "n", ExpectAbsent)}}, true, nil, true, true},
		"create that did not": {Txn{Writes: []Write{put(t, key("b"), "n", ExpectAbsent)}}, false, nil, false, true},
		"create, deleted since": {
			Txn{Writes: []Write{put(t, key("c"), "n", ExpectAbsent)}}, true, []Write{remove("c")}, true, true,
		},
		"create by another": {
			Txn{Writes: []Write{put(t, key("d"), "n", ExpectAbsent)}}, false, []Write{put(t, key("d"), "m", ExpectAbsent)}, false, true,
		},
		"update": {
			Txn{Writes: []Write{put(t, key("updated"), "n", revs["updated"])}}, true,
			[]Write{put(t, key("updated"), "m", ExpectExists)}, true, true,
		},
		"update by another": {
			Txn{Writes: []Write{put(t, key("overtaken"), "n", revs["overtaken"])}}, false,
			[]Write{put(t, key("overtaken"), "m", ExpectExists)}, false, true,
		},
		"update that did not": {
			Txn{Writes: []Write{put(t, key("not-updated"), "n", revs["not-updated"])}}, false, nil, false, true,
		},
		"delete that did not": {
			Txn{Writes: []Write{{Key: key("not-updated"), Delete: true, Expect: revs["not-updated"]}}}, false, nil, false, true,
		},
		"delete by anyone": {
			Txn{Writes: []Write{{Key: key("deleted"), Delete: true, Expect: revs["deleted"]}}}, true, nil, false, false,
		},
		"delete with a create": {
			Txn{Writes: []Write{{Key: key("both"), Delete: true, Expect: revs["both"]}, put(t, key("both-2"), "n", ExpectAbsent)}},
			true, nil, true, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.current(ctx); err != nil {
				t.Fatal(err)
			}
			since := s.cache.at()
			// The epoch changes with every case: learn it, as Commit does.
			ops := newTxnOps(tc.txn)
			attempted := outcome{epoch: s.epoch.Load()}
			for again := tc.attempt; again; again = attempted.stale {
				if attempted = s.attempt(ctx, tc.txn, ops); attempted.err != nil {
					t.Fatal(attempted.err)
				}
			}
			want := attempted.revision
			attempted.err = lost
			for _, w := range tc.then {
				mustCommit(t, other, w)
			}
			rev, happened, err := s.settle(ctx, tc.txn, since, attempted)
			if happened != tc.happened || happened && rev != want {
				t.Errorf("settle gives %d, %t, want %d, %t", rev, happened, want, tc.happened)
			}
			if known := err == nil; known != tc.known || !known && !errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("error is %v, known should be %t", err, tc.known)
			}
		})
	}
}

// An attempt that was given up can't happen afterwards.
func TestSettledAttemptIsFenced(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	late, _ := openStore(t, c.Client(), Config{}) // knows the old epoch, as a message on its way does
	ctx := deadline(t, 30*time.Second)
	txn := Txn{Writes: []Write{put(t, podKey("default", "a"), "", ExpectAbsent)}}
	if _, happened, err := s.settle(ctx, txn, s.cache.at(), outcome{epoch: s.epoch.Load(), err: ErrUnavailable}); happened || err != nil {
		t.Fatalf("settle gives %t, %v", happened, err)
	}
	if made := late.attempt(ctx, txn, newTxnOps(txn)); !made.stale || made.err != nil {
		t.Fatalf("the late attempt gives %+v, want that it was refused", made)
	}
	if _, err := s.Get(ctx, txn.Writes[0].Key); !errors.Is(err, ErrNotFound) {
		t.Errorf("the late attempt happened: %v", err)
	}
	if _, err := late.Commit(ctx, txn); err != nil {
		t.Errorf("a new attempt after the epoch changed: %v", err)
	}
}

// Counters that many writers raise while leaders die hold exactly the raises that were
// acknowledged, and those of unknown outcome at most.
func TestNothingHappensTwice(t *testing.T) {
	c := etcdtest.New(t, 3)
	stores := make([]*Store, 2)
	for i := range stores {
		stores[i], _ = openStore(t, c.Client(), Config{})
	}
	key := podKey("default", "counter")
	mustCommit(t, stores[0], put(t, key, "0", ExpectAbsent))

	ctx := deadline(t, 60*time.Second)
	var acknowledged, unknown, last, longest atomic.Int64
	last.Store(time.Now().UnixNano())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for n := range 6 {
		s := stores[n%len(stores)]
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				o, err := s.Get(ctx, key)
				if err != nil {
					if !errors.Is(err, ErrUnavailable) {
						t.Error(err)
						return
					}
					continue
				}
				count, _ := strconv.Atoi(o.Field(podField("spec.nodeName")))
				_, err = s.Commit(ctx, Txn{Writes: []Write{{
					// The label makes every raise one of its own.
					Key: key, Expect: o.Revision,
					Bytes: podBytes(t, key, strconv.Itoa(count+1), map[string]string{"by": fmt.Sprint(n, "-", time.Now().UnixNano())}),
				}}})
				var conflict *ConflictError
				switch {
				case err == nil:
					acknowledged.Add(1)
					now := time.Now().UnixNano()
					gap := now - last.Swap(now)
					for old := longest.Load(); gap > old && !longest.CompareAndSwap(old, gap); old = longest.Load() {
					}
				case errors.As(err, &conflict):
				case errors.Is(err, ErrUnknownOutcome):
					unknown.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	await := func(more int64) {
		for want := acknowledged.Load() + more; acknowledged.Load() < want && ctx.Err() == nil; {
			stores[0].Get(ctx, key)
		}
	}
	for range 3 {
		await(100)
		leader := c.Leader()
		leader.Kill()
		await(100)
		leader.Start()
	}
	close(stop)
	wg.Wait()
	o, err := stores[1].Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	count, _ := strconv.ParseInt(o.Field(podField("spec.nodeName")), 10, 64)
	if a, u := acknowledged.Load(), unknown.Load(); count < a || count > a+u {
		t.Errorf("the counter is at %d, but %d raises were acknowledged and %d are unknown", count, a, u)
	}
	t.Logf("%d acknowledged, %d unknown, longest gap %s", acknowledged.Load(), unknown.Load(), time.Duration(longest.Load()))
}
