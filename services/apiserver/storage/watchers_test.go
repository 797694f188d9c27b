package storage

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestWatchesOfOneValue moves a pod from node to node beneath the watches of many nodes: each sees
// what concerns it, and the change is held against no other watch's filter.
func TestWatchesOfOneValue(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	pods := kinds.Of(new(corev1.Pod))
	nodeName, ok := pods.Field("spec.nodeName")
	if !ok {
		t.Fatal("pods have no field spec.nodeName")
	}
	var held [5]atomic.Int64
	var watches [5]*testWatch
	for i := range watches {
		node := fmt.Sprintf("node-%d", i)
		matches := onNode(node)
		watches[i] = startWatch(t, s, WatchOptions{Kind: "Pod", Exact: &Exact{"spec.nodeName", nodeName, node}, Match: func(o *Object) bool {
			held[i].Add(1)
			return matches(o)
		}})
		watches[i].expect("BOOKMARK end")
	}
	key := podKey("default", "a")
	mustCommit(t, s, put(t, key, "", ExpectAbsent))
	mustCommit(t, s, put(t, key, "node-1", ExpectExists))
	mustCommit(t, s, put(t, key, "node-1", ExpectExists))
	mustCommit(t, s, put(t, key, "node-2", ExpectExists))
	mustCommit(t, s, Write{Key: key, Delete: true, Expect: ExpectExists})
	watches[1].expect("ADDED default/a", "MODIFIED default/a", "DELETED default/a")
	watches[2].expect("ADDED default/a", "DELETED default/a")
	for _, i := range []int{0, 3, 4} {
		if n := held[i].Load(); n != 0 {
			t.Errorf("the watch of node-%d looked at %d objects of others", i, n)
		}
	}
	for _, w := range watches {
		w.stop()
		<-w.ended
	}
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	if ws := s.cache.kinds.Load().caches[groupKind{"", "Pod"}].watchers; len(ws.all) != 0 || len(ws.exact) != 0 {
		t.Errorf("watches that have ended are left: %v", ws)
	}
}

// TestWatchOfOneName begins watches of single objects among others: each looks at its own alone.
func TestWatchOfOneName(t *testing.T) {
	s, _ := openStore(t, etcdtest.New(t, 1).Client(), Config{})
	nodeKey := func(name string) Key { return Key{Kind: "Node", Name: name} }
	for i := range 20 {
		mustCommit(t, s, put(t, podKey("default", fmt.Sprintf("pod-%d", i)), "", ExpectAbsent))
		mustCommit(t, s, put(t, podKey("other", fmt.Sprintf("pod-%d", i)), "", ExpectAbsent))
		mustCommit(t, s, put(t, nodeKey(fmt.Sprintf("node-%d", i)), "", ExpectAbsent))
	}
	for _, tt := range []struct {
		kind, namespace, name string
		held                  int64
		want                  []string
	}{
		{"Node", "", "node-7", 1, []string{"ADDED /node-7", "BOOKMARK end"}},
		{"Node", "", "missing", 0, []string{"BOOKMARK end"}},
		{"Pod", "other", "pod-7", 1, []string{"ADDED other/pod-7", "BOOKMARK end"}},
		{"Pod", "none", "pod-7", 0, []string{"BOOKMARK end"}},
		// Of one name in all namespaces there may be several.
		{"Pod", "", "pod-7", 40, []string{"ADDED default/pod-7", "ADDED other/pod-7", "BOOKMARK end"}},
	} {
		k, _ := kinds.ByGroupKind("", tt.kind)
		field, ok := k.Field(FieldName)
		if !ok {
			t.Fatalf("%s has no field %s", tt.kind, FieldName)
		}
		var held atomic.Int64
		w := startWatch(t, s, WatchOptions{Kind: tt.kind, Namespace: tt.namespace, Exact: &Exact{FieldName, field, tt.name}, Match: func(o *Object) bool {
			held.Add(1)
			return o.Key.Name == tt.name
		}})
		w.expect(tt.want...)
		if n := held.Load(); n != tt.held {
			t.Errorf("%s %s/%s: %d objects were looked at, want %d", tt.kind, tt.namespace, tt.name, n, tt.held)
		}
		w.stop()
		<-w.ended
	}
}
