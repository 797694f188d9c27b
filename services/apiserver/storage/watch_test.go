package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/etcdtest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// testWatch collects what a watch sends.
type testWatch struct {
	t      testing.TB
	events chan Event
	ended  chan error
	stop   context.CancelFunc
	last   int64
}

func startWatch(t testing.TB, s *Store, opts WatchOptions) *testWatch {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &testWatch{t: t, events: make(chan Event, 10000), ended: make(chan error, 1), stop: cancel}
	go func() {
		w.ended <- s.Watch(ctx, opts, func(events []Event) error {
			for _, e := range events {
				w.events <- e
			}
			return nil
		})
	}()
	t.Cleanup(cancel)
	return w
}

func (w *testWatch) next() Event {
	w.t.Helper()
	select {
	case e := <-w.events:
		return e
	case err := <-w.ended:
		w.t.Fatalf("watch ended: %v", err)
	case <-time.After(15 * time.Second):
		w.t.Fatal("no event in time")
	}
	panic("unreachable")
}

// expect reads as many events as are wanted: "ADDED ns/name", "BOOKMARK end".
func (w *testWatch) expect(want ...string) {
	w.t.Helper()
	for i, line := range want {
		e := w.next()
		got := describe(w.t, e)
		if got != line {
			w.t.Fatalf("event %d is %q, want %q", i, got, line)
		}
		w.last = max(w.last, e.Revision)
	}
}

// describe reads the event from its frame, as a client would.
func describe(t testing.TB, e Event) string {
	t.Helper()
	r := new(apiv1.WatchResponse)
	if err := proto.Unmarshal(e.Frame(), r); err != nil {
		t.Fatal(err)
	}
	kind := strings.TrimPrefix(r.Type.String(), "EVENT_TYPE_")
	if r.ResourceVersion != fmt.Sprint(e.Revision) {
		t.Errorf("frame of %s has version %s, the event has %d", kind, r.ResourceVersion, e.Revision)
	}
	switch {
	case r.InitialStateEnd:
		return kind + " end"
	case r.Object == nil:
		return kind
	}
	return kind + " " + e.Object.Key.Namespace + "/" + e.Object.Key.Name
}

func (w *testWatch) wantEnd(want error) {
	w.t.Helper()
	select {
	case err := <-w.ended:
		if !errors.Is(err, want) {
			w.t.Errorf("watch ended with %v, want %v", err, want)
		}
	case <-time.After(15 * time.Second):
		w.t.Fatal("watch did not end")
	}
}

func TestWatch(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	a, b, other := podKey("default", "a"), podKey("default", "b"), podKey("other", "a")
	mustCommit(t, s, put(t, a, "node-1", ExpectAbsent), put(t, other, "node-2", ExpectAbsent))

	all := startWatch(t, s, WatchOptions{Kind: "Pod"})
	all.expect("ADDED default/a", "ADDED other/a", "BOOKMARK end")
	space := startWatch(t, s, WatchOptions{Kind: "Pod", Namespace: "default"})
	space.expect("ADDED default/a", "BOOKMARK end")
	node := startWatch(t, s, WatchOptions{Kind: "Pod", Match: onNode("node-2")})
	node.expect("ADDED other/a", "BOOKMARK end")
	nodes := startWatch(t, s, WatchOptions{Kind: "Node"})
	nodes.expect("BOOKMARK end")

	mustCommit(t, s, put(t, b, "", ExpectAbsent))
	mustCommit(t, s, put(t, b, "node-2", ExpectExists))
	mustCommit(t, s, put(t, b, "node-2", ExpectExists))
	mustCommit(t, s, put(t, b, "node-1", ExpectExists))
	mustCommit(t, s, Write{Key: b, Delete: true, Expect: ExpectExists})
	mustCommit(t, s, Write{Key: other, Delete: true, Expect: ExpectExists})
	mustCommit(t, s, Write{Key: Key{Kind: "Node", Name: "n"}, Expect: ExpectAbsent})

	all.expect("ADDED default/b", "MODIFIED default/b", "MODIFIED default/b", "MODIFIED default/b", "DELETED default/b", "DELETED other/a")
	space.expect("ADDED default/b", "MODIFIED default/b", "MODIFIED default/b", "MODIFIED default/b", "DELETED default/b")
	node.expect("ADDED default/b", "MODIFIED default/b", "DELETED default/b", "DELETED other/a")
	nodes.expect("ADDED /n")

	all.stop()
	all.wantEnd(context.Canceled)
	refused := errors.New("refused")
	if err := s.Watch(context.Background(), WatchOptions{Kind: "Pod"}, func([]Event) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("Watch returns %v, want what send returned", err)
	}
}

func TestWatchResumes(t *testing.T) {
	for name, cfg := range map[string]Config{
		"from history":       {},
		"from etcd":          {HistoryChanges: 1},
		"from etcd and both": {HistoryChanges: 3},
	} {
		t.Run(name, func(t *testing.T) {
			c := etcdtest.New(t, 1)
			s, _ := openStore(t, c.Client(), cfg)
			a, b := podKey("default", "a"), podKey("default", "b")
			var revs []int64
			for _, write := range []Write{
				put(t, a, "node-1", ExpectAbsent),
				put(t, b, "node-1", ExpectAbsent),
				put(t, a, "node-2", ExpectExists),
				{Key: b, Delete: true, Expect: ExpectExists},
				put(t, b, "node-1", ExpectAbsent),
				put(t, b, "node-2", ExpectExists),
			} {
				revs = append(revs, mustCommit(t, s, write))
			}
			lines := []string{"ADDED default/a", "ADDED default/b", "MODIFIED default/a", "DELETED default/b", "ADDED default/b", "MODIFIED default/b"}
			if _, err := s.Get(deadline(t, 10*time.Second), a); err != nil { // the cache is up to date
				t.Fatal(err)
			}
			for i, rev := range revs {
				w := startWatch(t, s, WatchOptions{Kind: "Pod", FromRevision: rev})
				w.expect(lines[i+1:]...)
			}
			node := startWatch(t, s, WatchOptions{Kind: "Pod", FromRevision: revs[0], Match: onNode("node-1")})
			node.expect("ADDED default/b", "DELETED default/a", "DELETED default/b", "ADDED default/b", "DELETED default/b")

			last := startWatch(t, s, WatchOptions{Kind: "Pod", FromRevision: revs[2]})
			last.expect(lines[3:]...)
			mustCommit(t, s, Write{Key: a, Delete: true, Expect: ExpectExists})
			last.expect("DELETED default/a")

			startWatch(t, s, WatchOptions{Kind: "Pod", FromRevision: revs[5] + 1000}).wantEnd(ErrFutureRevision)
			c.Compact()
			if cfg.HistoryChanges == 1 {
				startWatch(t, s, WatchOptions{Kind: "Pod", FromRevision: revs[0]}).wantEnd(ErrCompacted)
			}
		})
	}
}

// A watch that another store served can resume on one that has just started.
func TestWatchResumesOnANewStore(t *testing.T) {
	for name, cfg := range map[string]Config{"preloaded": {}, "from etcd": {HistoryPreload: -1}} {
		t.Run(name, func(t *testing.T) {
			c := etcdtest.New(t, 1)
			s, stop := openStore(t, c.Client(), Config{})
			rev := mustCommit(t, s, put(t, podKey("default", "a"), "", ExpectAbsent))
			mustCommit(t, s, put(t, podKey("default", "b"), "", ExpectAbsent))
			mustCommit(t, s, Write{Key: podKey("default", "a"), Delete: true, Expect: rev})
			stop()
			fresh, _ := openStore(t, c.Client(), cfg)
			w := startWatch(t, fresh, WatchOptions{Kind: "Pod", FromRevision: rev})
			w.expect("ADDED default/b", "DELETED default/a")
		})
	}
}

// TestWatchTellsThatItHasStarted notes what was sent before Started was called: the whole state, or
// all that was missed.
func TestWatchTellsThatItHasStarted(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	first := mustCommit(t, s, put(t, podKey("default", "a"), "", ExpectAbsent))
	last := mustCommit(t, s, put(t, podKey("default", "b"), "", ExpectAbsent))
	for _, tt := range []struct {
		from int64
		sent int // events
	}{{0, 3}, {first, 1}, {last, 0}} {
		ctx, cancel := context.WithCancel(deadline(t, 15*time.Second))
		sent, started := 0, -1
		_ = s.Watch(ctx, WatchOptions{Kind: "Pod", FromRevision: tt.from, Started: func() { started = sent; cancel() }}, func(events []Event) error {
			sent += len(events)
			return nil
		})
		cancel()
		if started != tt.sent {
			t.Errorf("from revision %d: started after %d events, want %d", tt.from, started, tt.sent)
		}
	}
}

func TestNewStoreAfterCompaction(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, stop := openStore(t, c.Client(), Config{})
	rev := mustCommit(t, s, put(t, podKey("default", "a"), "", ExpectAbsent))
	b := mustCommit(t, s, put(t, podKey("default", "b"), "", ExpectAbsent))
	mustCommit(t, s, put(t, podKey("default", "b"), "", b))
	stop()
	c.Compact()
	fresh, _ := openStore(t, c.Client(), Config{})
	list, err := fresh.List(deadline(t, 10*time.Second), ListOptions{Kind: "Pod"})
	if err != nil || len(list.Objects) != 2 {
		t.Errorf("list has %v, %v", names(list.Objects), err)
	}
	startWatch(t, fresh, WatchOptions{Kind: "Pod", FromRevision: rev}).wantEnd(ErrCompacted)
	// The update itself is known, but not what it changed.
	startWatch(t, fresh, WatchOptions{Kind: "Pod", FromRevision: b}).wantEnd(ErrCompacted)
}

// TestRelistAfterCompaction disconnects a store while etcd compacts the changes that it missed: the
// store reads the state again, and its watchers receive the difference.
func TestRelistAfterCompaction(t *testing.T) {
	c := etcdtest.New(t, 1)
	s, stop := openStore(t, c.Client(), Config{})
	other, _ := openStore(t, c.Client(), Config{})
	kept, changed, gone, again, fresh := podKey("default", "kept"), podKey("default", "changed"), podKey("default", "gone"), podKey("default", "again"), podKey("default", "fresh")
	for _, k := range []Key{again, changed, gone, kept} {
		mustCommit(t, s, put(t, k, "node-1", ExpectAbsent))
	}
	before := mustCommit(t, s, put(t, kept, "node-2", ExpectExists))
	w := startWatch(t, s, WatchOptions{Kind: "Pod"})
	w.expect("ADDED default/again", "ADDED default/changed", "ADDED default/gone", "ADDED default/kept", "BOOKMARK end")
	node := startWatch(t, s, WatchOptions{Kind: "Pod", Match: onNode("node-1")})
	node.expect("ADDED default/again", "ADDED default/changed", "ADDED default/gone", "BOOKMARK end")

	stop()
	mustCommit(t, other, put(t, changed, "node-2", ExpectExists))
	mustCommit(t, other, Write{Key: again, Delete: true, Expect: ExpectExists})
	mustCommit(t, other, put(t, again, "node-1", ExpectAbsent))
	mustCommit(t, other, Write{Key: gone, Delete: true, Expect: ExpectExists})
	mustCommit(t, other, put(t, fresh, "node-1", ExpectAbsent))
	c.Compact()
	runStore(t, s)

	w.expect("MODIFIED default/changed", "DELETED default/again", "ADDED default/again", "ADDED default/fresh", "DELETED default/gone")
	node.expect("DELETED default/changed", "DELETED default/again", "ADDED default/again", "ADDED default/fresh", "DELETED default/gone")
	mustCommit(t, s, put(t, kept, "node-3", before))
	w.expect("MODIFIED default/kept")
	list, err := s.List(deadline(t, 10*time.Second), ListOptions{Kind: "Pod"})
	if want := []string{"default/again", "default/changed", "default/fresh", "default/kept"}; err != nil || !slices.Equal(names(list.Objects), want) {
		t.Errorf("list is %v, %v, want %v", names(list.Objects), err, want)
	}
	startWatch(t, s, WatchOptions{Kind: "Pod", FromRevision: before}).wantEnd(ErrCompacted)
}

func TestSlowWatcherIsCutOff(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{WatchChanges: 10})
	block := make(chan struct{})
	var seen int64
	ended := make(chan error, 1)
	entered := make(chan struct{}, 100)
	go func() {
		ended <- s.Watch(deadline(t, 30*time.Second), WatchOptions{Kind: "Pod"}, func(events []Event) error {
			seen = events[len(events)-1].Revision
			entered <- struct{}{}
			<-block
			return nil
		})
	}()
	<-entered
	quick := startWatch(t, s, WatchOptions{Kind: "Pod"})
	quick.expect("BOOKMARK end")
	const writes = 30
	var want []string
	for i := range writes {
		mustCommit(t, s, put(t, podKey("default", fmt.Sprint("p-", i)), "", ExpectAbsent))
		want = append(want, fmt.Sprint("ADDED default/p-", i))
		quick.expect(want[i]) // the slow one delays no other
	}
	close(block)
	if err := <-ended; !errors.Is(err, ErrSlowWatcher) {
		t.Fatalf("the slow watch ended with %v, want ErrSlowWatcher", err)
	}
	startWatch(t, s, WatchOptions{Kind: "Pod", FromRevision: seen}).expect(want...)
}

func TestBookmarks(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{BookmarkInterval: 50 * time.Millisecond})
	w := startWatch(t, s, WatchOptions{Kind: "Pod"})
	w.expect("BOOKMARK end")
	rev := mustCommit(t, s, Write{Key: Key{Kind: "Node", Name: "n"}, Expect: ExpectAbsent})
	for e := w.next(); e.Revision < rev; e = w.next() {
		if e.Type != apiv1.EventType_EVENT_TYPE_BOOKMARK || e.InitialStateEnd {
			t.Fatalf("event is %s, want a bookmark", describe(t, e))
		}
	}
}

func TestWatcherBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatcher(WatchOptions{Kind: "Pod"}, 1000, 1<<20)
		o := testObject(t, testPod(), 5)
		go func() {
			for i := range 500 {
				w.push(Event{Object: o, Revision: int64(i)})
			}
		}()
		var got []Event
		var spare []Event
		for len(got) < 500 {
			<-w.filled
			events, err := w.drain(spare)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, events...)
			spare = events
		}
		for i, e := range got {
			if e.Revision != int64(i) {
				t.Fatalf("event %d has revision %d", i, e.Revision)
			}
		}
	})
}
