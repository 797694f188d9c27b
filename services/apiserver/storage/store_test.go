package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// openStore runs a store until the test ends. The returned function stops it earlier.
func openStore(t testing.TB, cli *clientv3.Client, cfg Config) (*Store, func()) {
	t.Helper()
	setDefault(&cfg.MaxTxnOps, 10240)
	if len(cli.Endpoints()) == 1 {
		// A single member that does not answer at once is busy. To try again would gain nothing, and
		// leave the outcome of some writes unknown.
		setDefault(&cfg.WriteAttempt, 10*time.Second)
	}
	s, err := New(cfg, kinds.NewScheme(), cli, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return s, runStore(t, s)
}

// runStore runs a store and waits until it is ready.
func runStore(t testing.TB, s *Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	if err := s.WaitReady(deadline(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	return stop
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func podKey(namespace, name string) Key { return Key{Kind: "Pod", Namespace: namespace, Name: name} }

func podBytes(t testing.TB, key Key, node string, labels map[string]string) []byte {
	return marshal(t, &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, Labels: labels},
		Spec:     &corev1.PodSpec{NodeName: node},
	})
}

func onNode(node string) Match {
	return func(o *Object) bool { return o.Field(podField("spec.nodeName")) == node }
}

func mustCommit(t testing.TB, s *Store, writes ...Write) int64 {
	t.Helper()
	rev, err := s.Commit(deadline(t, 10*time.Second), Txn{Writes: writes})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func put(t testing.TB, key Key, node string, expect int64) Write {
	return Write{Key: key, Bytes: podBytes(t, key, node, nil), Expect: expect}
}

func names(objects []*Object) []string {
	var out []string
	for _, o := range objects {
		out = append(out, o.Key.Namespace+"/"+o.Key.Name)
	}
	return out
}

func TestReadAndWrite(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	key := podKey("default", "a")

	if _, err := s.Get(ctx, key); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get before create: %v, want ErrNotFound", err)
	}
	created := mustCommit(t, s, put(t, key, "", ExpectAbsent))
	o, err := s.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if o.Revision != created || o.CreateRevision != created || o.Meta().GetResourceVersion() != fmt.Sprint(created) {
		t.Errorf("object has revisions %d, %d and version %s, want %d", o.Revision, o.CreateRevision, o.Meta().GetResourceVersion(), created)
	}

	updated := mustCommit(t, s, put(t, key, "node-1", created))
	if o, err = s.Get(ctx, key); err != nil || o.Revision != updated || o.CreateRevision != created || !onNode("node-1")(o) {
		t.Errorf("after the update: %+v, %v", o, err)
	}
	if o, err = s.GetAt(ctx, key, created); err != nil || o.Revision != created {
		t.Errorf("GetAt the creation: %+v, %v", o, err)
	}
	if _, err = s.GetAt(ctx, key, updated+1000); !errors.Is(err, ErrFutureRevision) {
		t.Errorf("GetAt the future: %v, want ErrFutureRevision", err)
	}

	mustCommit(t, s, Write{Key: key, Delete: true, Expect: updated})
	if _, err := s.Get(ctx, key); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get after delete: %v, want ErrNotFound", err)
	}
	if _, err := s.List(ctx, ListOptions{Kind: "Nonsense"}); err == nil {
		t.Error("List of an unknown kind succeeds")
	}
	c.Compact()
	if _, err := s.GetAt(ctx, key, created); !errors.Is(err, ErrCompacted) {
		t.Errorf("GetAt a compacted revision: %v, want ErrCompacted", err)
	}
}

func TestCommitConditions(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	a, b, gone := podKey("default", "a"), podKey("default", "b"), podKey("default", "gone")
	fence := Key{Group: "coordination.k8s.io", Kind: "Lease", Namespace: "kube-system", Name: "scheduler"}
	atA := mustCommit(t, s, put(t, a, "", ExpectAbsent))
	atFence := mustCommit(t, s, Write{Key: fence, Expect: ExpectAbsent})

	for name, tc := range map[string]struct {
		txn  Txn
		want any // nil, an error, or a ConflictError to compare
	}{
		"create what exists": {
			Txn{Writes: []Write{put(t, b, "", ExpectAbsent), put(t, a, "", ExpectAbsent)}},
			ConflictError{Index: 1, Key: a, Exists: true, Revision: atA},
		},
		"update what is gone": {
			Txn{Writes: []Write{put(t, gone, "", atA)}}, ConflictError{Key: gone},
		},
		"update any of what is gone": {
			Txn{Writes: []Write{put(t, gone, "", ExpectExists)}}, ConflictError{Key: gone},
		},
		"delete another version": {
			Txn{Writes: []Write{put(t, b, "", ExpectAbsent), {Key: a, Delete: true, Expect: atA - 1}}},
			ConflictError{Index: 1, Key: a, Exists: true, Revision: atA},
		},
		"a fence that is gone": {
			Txn{Writes: []Write{put(t, b, "", ExpectAbsent)}, Preconditions: []Condition{{Key: gone, CreateRevision: 4}}}, PreconditionError{},
		},
		"another's fence": {
			Txn{Writes: []Write{put(t, b, "", ExpectAbsent)}, Preconditions: []Condition{{Key: fence, CreateRevision: atFence - 1}}}, PreconditionError{},
		},
		"a lost fence and a conflict": {
			Txn{Writes: []Write{put(t, a, "", ExpectAbsent)}, Preconditions: []Condition{{Key: fence, CreateRevision: 1}}}, PreconditionError{},
		},
		"a lease that never was": {
			Txn{Writes: []Write{{Key: b, Expect: ExpectAbsent, Lease: 12345}}}, ErrLeaseNotFound,
		},
		"too large": {
			Txn{Writes: []Write{{Key: b, Expect: ExpectAbsent, Bytes: make([]byte, 5<<20)}}}, ErrTooLarge,
		},
		"too many": {
			Txn{Writes: make11k(t)}, ErrTooLarge,
		},
		"its own fence": {
			Txn{
				Writes: []Write{put(t, podKey("default", "c"), "", ExpectAbsent)}, Preconditions: []Condition{{Key: fence, CreateRevision: atFence}},
			}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Commit(ctx, tc.txn)
			switch want := tc.want.(type) {
			case nil:
				if err != nil {
					t.Error(err)
				}
			case PreconditionError:
				if !isPrecondition(err, 0) {
					t.Errorf("error is %v, want a failed precondition", err)
				}
			case error:
				if !errors.Is(err, want) {
					t.Errorf("error is %v, want %v", err, want)
				}
				if errors.Is(err, ErrUnknownOutcome) {
					t.Errorf("outcome of a refused write is said to be unknown: %v", err)
				}
			case ConflictError:
				var conflict *ConflictError
				if !errors.As(err, &conflict) || *conflict != want {
					t.Errorf("error is %v, want %v", err, &want)
				}
			}
			if _, err := s.Get(ctx, b); !errors.Is(err, ErrNotFound) {
				t.Errorf("a transaction that failed wrote something: %v", err)
			}
		})
	}
}

func make11k(t testing.TB) []Write {
	var writes []Write
	for i := range 11000 {
		writes = append(writes, Write{Key: podKey("default", fmt.Sprint("many-", i))})
	}
	return writes
}

func TestTransactionIsOneRevision(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	var writes []Write
	for i := range 400 {
		writes = append(writes, put(t, podKey("default", fmt.Sprintf("p-%03d", i)), "", ExpectAbsent))
	}
	rev := mustCommit(t, s, writes...)
	list, err := s.List(ctx, ListOptions{Kind: "Pod"})
	if err != nil || len(list.Objects) != len(writes) || list.Revision != rev {
		t.Fatalf("list has %d objects at %d, %v, want %d at %d", len(list.Objects), list.Revision, err, len(writes), rev)
	}
	for _, o := range list.Objects {
		if o.Revision != rev {
			t.Errorf("%s is at revision %d, want %d", o.Key, o.Revision, rev)
		}
	}
}

func TestLeases(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	id, ttl, err := s.LeaseGrant(ctx, 0, 60, "system:node:node-1")
	if err != nil || id == 0 || ttl != 60 {
		t.Fatalf("LeaseGrant gives %d, %d, %v", id, ttl, err)
	}
	if owner, err := s.LeaseOwner(ctx, id); err != nil || owner != "system:node:node-1" {
		t.Errorf("LeaseOwner gives %q, %v", owner, err)
	}
	if ttl, err := s.LeaseKeepAlive(ctx, id); err != nil || ttl != 60 {
		t.Errorf("LeaseKeepAlive gives %d, %v", ttl, err)
	}
	key := podKey("default", "leased")
	mustCommit(t, s, Write{Key: key, Expect: ExpectAbsent, Lease: id})
	if o, err := s.Get(ctx, key); err != nil || o.Lease != id {
		t.Errorf("object has lease %d, %v, want %d", o.Lease, err, id)
	}
	if err := s.LeaseRevoke(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, key); !errors.Is(err, ErrNotFound) {
		t.Errorf("object outlives its lease: %v", err)
	}
	if _, err := s.LeaseOwner(ctx, id); !errors.Is(err, ErrLeaseNotFound) {
		t.Errorf("LeaseOwner of a lease that is gone: %v", err)
	}
	if _, err := s.LeaseKeepAlive(ctx, id); !errors.Is(err, ErrLeaseNotFound) {
		t.Errorf("LeaseKeepAlive of a lease that is gone: %v", err)
	}
	if err := s.LeaseRevoke(ctx, id); !errors.Is(err, ErrLeaseNotFound) {
		t.Errorf("LeaseRevoke of a lease that is gone: %v", err)
	}
}

// Renewals share a stream, and each gets its own answer, also when the member that serves the
// stream goes away.
func TestConcurrentRenewals(t *testing.T) {
	c := etcdtest.New(t, 3)
	s, _ := openStore(t, c.Client(), Config{})
	ctx := deadline(t, 60*time.Second)
	const leases = 20
	renewAll := func(ids []int64) {
		t.Helper()
		var wg sync.WaitGroup
		for i, id := range ids {
			wg.Go(func() {
				for range 20 {
					if ttl, err := s.LeaseKeepAlive(ctx, id); err != nil || ttl != int64(100+i) {
						t.Errorf("lease %d: renewal gives %d, %v, want %d", i, ttl, err, 100+i)
						return
					}
					if _, err := s.LeaseKeepAlive(ctx, id+1); !errors.Is(err, ErrLeaseNotFound) {
						t.Errorf("renewal of no lease gives %v, want ErrLeaseNotFound", err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	var ids []int64
	for i := range leases {
		id, _, err := s.LeaseGrant(ctx, 0, int64(100+i), "me")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	renewAll(ids)
	for _, m := range c.Members() {
		m.Kill()
		c.Leader()
		renewAll(ids)
		m.Start()
		c.Leader()
	}
}

func TestObjectVanishesWithLapsedLease(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	ctx := deadline(t, 30*time.Second)
	w := startWatch(t, s, WatchOptions{Kind: "Pod"})
	w.expect("BOOKMARK end")
	// Long enough that even a machine that stands still for a moment writes the object in time.
	id, _, err := s.LeaseGrant(ctx, 0, 3, "me")
	if err != nil {
		t.Fatal(err)
	}
	key := podKey("default", "leased")
	mustCommit(t, s, Write{Key: key, Expect: ExpectAbsent, Lease: id})
	w.expect("ADDED default/leased", "DELETED default/leased")
}

func TestList(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{PageSize: 3})
	ctx := deadline(t, 30*time.Second)
	var want []string
	for _, ns := range []string{"a", "a-b", "b"} {
		for i := range 7 {
			key := podKey(ns, fmt.Sprintf("p-%d", i))
			mustCommit(t, s, put(t, key, fmt.Sprint("node-", i%2), ExpectAbsent))
			want = append(want, ns+"/"+key.Name)
		}
	}
	slices.SortFunc(want, func(a, b string) int { return strings.Compare(a, b) }) // "a-b/" before "a/"
	first, err := s.List(ctx, ListOptions{Kind: "Pod"})
	if err != nil || !slices.Equal(names(first.Objects), want) {
		t.Fatalf("list is %v, %v, want %v", names(first.Objects), err, want)
	}

	// Pages are of one snapshot, wherever they come from, whatever happens in between.
	for name, opts := range map[string]ListOptions{
		"all":                {Kind: "Pod", Limit: 2},
		"namespace":          {Kind: "Pod", Namespace: "a", Limit: 3},
		"match":              {Kind: "Pod", Match: onNode("node-1"), Limit: 4},
		"whole":              {Kind: "Pod"},
		"namespace, no page": {Kind: "Pod", Namespace: "a-b"},
	} {
		for _, from := range []string{"cache", "etcd"} {
			t.Run(name+" from "+from, func(t *testing.T) {
				var want []string
				for _, o := range first.Objects {
					if (opts.Namespace == "" || o.Key.Namespace == opts.Namespace) && opts.Match.ok(o) {
						want = append(want, o.Key.Namespace+"/"+o.Key.Name)
					}
				}
				// What the pages must not show, undone afterwards.
				noise := podKey("a", "p-00-noise")
				defer mustCommit(t, s, Write{Key: noise, Delete: true, Expect: ExpectExists})
				opts := opts
				if from == "etcd" {
					opts.AtRevision = first.Revision
				}
				var got []string
				var revision int64
				for page := 0; ; page++ {
					list, err := s.List(ctx, opts)
					if err != nil {
						t.Fatal(err)
					}
					if opts.Limit > 0 && int64(len(list.Objects)) > opts.Limit {
						t.Errorf("page %d has %d objects", page, len(list.Objects))
					}
					if page == 0 {
						revision = list.Revision
						mustCommit(t, s, put(t, noise, "node-1", ExpectAbsent))
					}
					if list.Revision != revision {
						t.Errorf("page %d is at revision %d, the first at %d", page, list.Revision, revision)
					}
					got = append(got, names(list.Objects)...)
					opts.Continue = list.Continue
					if list.Continue == "" {
						break
					}
					if from == "etcd" {
						s.cache.dropPaged(time.Now().Add(time.Hour))
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("pages have %v, want %v", got, want)
				}
			})
		}
	}

	page, err := s.List(ctx, ListOptions{Kind: "Pod", Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(ctx, ListOptions{Kind: "Node", Limit: 2, Continue: page.Continue}); !errors.Is(err, ErrContinue) {
		t.Errorf("a token of another kind gives %v, want ErrContinue", err)
	}
	mustCommit(t, s, put(t, podKey("z", "late"), "", ExpectAbsent))
	c.Compact()
	if list, err := s.List(ctx, ListOptions{Kind: "Pod", Continue: page.Continue}); err != nil || len(list.Objects) != len(want)-2 {
		t.Errorf("a kept snapshot does not outlive compaction: %d objects, %v", len(list.Objects), err)
	}
	s.cache.dropPaged(time.Now().Add(time.Hour))
	if _, err := s.List(ctx, ListOptions{Kind: "Pod", Continue: page.Continue}); !errors.Is(err, ErrCompacted) {
		t.Errorf("a page of a compacted snapshot gives %v, want ErrCompacted", err)
	}
	if _, err := s.List(ctx, ListOptions{Kind: "Pod", AtRevision: 2}); !errors.Is(err, ErrCompacted) {
		t.Errorf("a list at a compacted revision gives %v, want ErrCompacted", err)
	}
}

// What one store acknowledged, every other store's reads must see at once.
// TestFiltersHonourCancellation stops lists and watches whose filters take long when their callers
// have gone.
func TestFiltersHonourCancellation(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, _ := openStore(t, c.Client(), Config{})
	var writes []Write
	for i := range 300 {
		writes = append(writes, put(t, podKey("a", fmt.Sprintf("p-%d", i)), "node-1", ExpectAbsent))
	}
	mustCommit(t, s, writes...)
	for name, read := range map[string]func(context.Context, Match) error{
		"list": func(ctx context.Context, m Match) error {
			_, err := s.List(ctx, ListOptions{Kind: "Pod", Match: m})
			return err
		},
		"watch": func(ctx context.Context, m Match) error {
			return s.Watch(ctx, WatchOptions{Kind: "Pod", Match: m}, func([]Event) error { return nil })
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		looked := 0
		err := read(ctx, func(*Object) bool {
			cancel()
			looked++
			return false
		})
		if !errors.Is(err, context.Canceled) || looked > visitsPerCheck {
			t.Errorf("%s: looked at %d objects after the caller had gone: %v", name, looked, err)
		}
	}
}

func TestReadsAreLinearizable(t *testing.T) {
	c := etcdtest.New(t, 1)
	a, _ := openStore(t, c.Client(), Config{})
	b, _ := openStore(t, c.Client(), Config{})
	stranger := c.Client()
	ctx := deadline(t, 60*time.Second)

	const writers, rounds = 8, 300
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			key := podKey("default", fmt.Sprint("w-", n))
			expect := ExpectAbsent
			for i := range rounds {
				rev, err := a.Commit(ctx, Txn{Writes: []Write{put(t, key, fmt.Sprint(i), expect)}})
				if err != nil {
					t.Error(err)
					return
				}
				expect = rev
				for _, s := range []*Store{b, a} {
					o, err := s.Get(ctx, key)
					if err != nil || o.Revision != rev {
						t.Errorf("round %d: Get after the write at revision %d gives %+v, %v", i, rev, o, err)
						return
					}
				}
				if i%20 == 0 {
					// A revision that makes no event.
					if _, err := stranger.Put(ctx, "/elsewhere", fmt.Sprint(i)); err != nil {
						t.Error(err)
						return
					}
					list, err := b.List(ctx, ListOptions{Kind: "Pod"})
					if err != nil || list.Revision < rev {
						t.Errorf("List after the write at revision %d is at %d, %v", rev, list.Revision, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
