package storage

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestKindsOfARunningStore removes and adds a kind while other objects are written.
func TestKindsOfARunningStore(t *testing.T) {
	served := kinds.NewScheme()
	s, err := New(Config{MaxTxnOps: 10240}, served, etcdtest.New(t, 1).Client(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	runStore(t, s)
	ctx := deadline(t, 30*time.Second)
	maps := kinds.Of(new(corev1.ConfigMap))
	key := Key{Kind: "ConfigMap", Namespace: "default", Name: "a"}
	mustCommit(t, s, put(t, key, "", ExpectAbsent))

	all := startWatch(t, s, WatchOptions{Kind: "ConfigMap"})
	all.expect("ADDED default/a", "BOOKMARK end")
	name, _ := maps.Field(FieldName)
	exact := startWatch(t, s, WatchOptions{Kind: "ConfigMap", Exact: &Exact{Name: FieldName, Field: name, Value: "a"}})
	exact.expect("ADDED default/a", "BOOKMARK end")
	if err := served.Unregister(maps); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*testWatch{all, exact} {
		if err := <-w.ended; !errors.Is(err, ErrUnknownKind) {
			t.Errorf("a watch of a removed kind ended with %v, want ErrUnknownKind", err)
		}
	}
	if _, err := s.List(ctx, ListOptions{Kind: "ConfigMap"}); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("List of a removed kind: %v, want ErrUnknownKind", err)
	}
	if _, err := s.Get(ctx, key); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("Get of a removed kind: %v, want ErrUnknownKind", err)
	}
	if err := s.Watch(ctx, WatchOptions{Kind: "ConfigMap"}, nil); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("Watch of a removed kind: %v, want ErrUnknownKind", err)
	}

	// What is written meanwhile is there when the kind is. Objects of other kinds stay.
	second := Key{Kind: "ConfigMap", Namespace: "default", Name: "b"}
	from := mustCommit(t, s, put(t, second, "", ExpectAbsent))
	mustCommit(t, s, put(t, podKey("default", "p"), "", ExpectAbsent))
	if err := served.Register(maps); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(ctx, ListOptions{Kind: "ConfigMap"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(list.Objects), []string{"default/a", "default/b"}; !slices.Equal(got, want) {
		t.Errorf("the added kind has %v, want %v", got, want)
	}
	third := Key{Kind: "ConfigMap", Namespace: "default", Name: "c"}
	again := startWatch(t, s, WatchOptions{Kind: "ConfigMap", FromRevision: from - 1})
	mustCommit(t, s, put(t, third, "", ExpectAbsent))
	again.expect("ADDED default/b", "ADDED default/c")
	if n := s.CountCached("", "Pod"); n != 1 {
		t.Errorf("%d pods are cached, want 1", n)
	}
}

// TestKindsAddedWhileEtcdIsGone registers a kind while etcd does not answer: reads wait, and it is
// read once etcd is back.
func TestKindsAddedWhileEtcdIsGone(t *testing.T) {
	served, err := scheme.New(kinds.Of(new(corev1.Pod)))
	if err != nil {
		t.Fatal(err)
	}
	cluster := etcdtest.New(t, 1)
	s, err := New(Config{MaxTxnOps: 10240, ReadTimeout: 2 * time.Second}, served, cluster.Client(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	runStore(t, s)
	key := Key{Kind: "ConfigMap", Namespace: "default", Name: "a"}
	mustCommit(t, s, put(t, key, "", ExpectAbsent))
	cluster.Members()[0].Stop()
	if err := served.Register(kinds.Of(new(corev1.ConfigMap))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(deadline(t, time.Minute), key); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Get without etcd: %v, want ErrUnavailable", err)
	}
	cluster.Members()[0].Start()
	ctx := deadline(t, 30*time.Second)
	for {
		_, err := s.Get(ctx, key)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			t.Fatalf("Get with etcd again: %v", err)
		}
	}
}
