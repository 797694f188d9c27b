package queue

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

func newPod(name string, priority int32) *framework.Pod {
	return &framework.Pod{Name: name, UID: name, Priority: priority}
}

// newQueue returns a queue in which an added node helps the pods that "nodes" refused, and a
// removed pod those of "pods".
func newQueue() *Queue {
	return New(func(_ *framework.Pod, refusedBy []string, e framework.Event) bool {
		return len(refusedBy) == 0 ||
			e.Kind&framework.NodeAdded != 0 && slices.Contains(refusedBy, "nodes") ||
			e.Kind&framework.PodRemoved != 0 && slices.Contains(refusedBy, "pods")
	})
}

var (
	nodeAdded  = framework.Event{Kind: framework.NodeAdded}
	podRemoved = framework.Event{Kind: framework.PodRemoved}
)

// popAll takes all that is ready and returns the names, and the pods by name.
func popAll(q *Queue, now time.Time) (string, map[string]*Pod) {
	var names []string
	by := map[string]*Pod{}
	for _, w := range q.Pop(100, now) {
		names = append(names, w.Name)
		by[w.Name] = w
	}
	return strings.Join(names, " "), by
}

func TestReadyPodsComeByPriorityAndAge(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.Add(newPod("old", 0), now)
	q.Add(newPod("young", 0), now.Add(time.Second))
	q.Add(newPod("high", 9), now.Add(2*time.Second))
	q.Add(newPod("low", -9), now)
	q.Add(newPod("gone", 99), now)
	q.Remove("gone")
	q.Remove("never there")
	if first := q.Pop(2, now); len(first) != 2 || first[0].Name != "high" || first[1].Name != "old" {
		t.Errorf("the first batch is %v", first)
	}
	q.Add(newPod("low", 5), now) // a change of a ready pod
	if got, _ := popAll(q, now); got != "low young" {
		t.Errorf("then came %q", got)
	}
}

func TestUnschedulablePodsWaitForEventsThatHelp(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.Add(newPod("a", 0), now)
	_, by := popAll(q, now)
	q.MarkUnschedulable(by["a"], []string{"pods"}, now)

	q.Move(nodeAdded, now)
	if got, _ := popAll(q, now.Add(time.Minute)); got != "" {
		t.Errorf("an event that does not help made %q ready", got)
	}
	if at, ok := q.Next(); !ok || !at.Equal(now.Add(UnschedulableMax)) {
		t.Errorf("next at %v, %v; want %v", at, ok, UnschedulableMax)
	}
	q.Move(podRemoved, now)
	if got, _ := popAll(q, now); got != "" {
		t.Errorf("%q came out before its back-off was over", got)
	}
	if at, ok := q.Next(); !ok || !at.Equal(now.Add(BackoffMin)) {
		t.Errorf("next at %v, %v; want %v", at, ok, BackoffMin)
	}
	if got, _ := popAll(q, now.Add(BackoffMin)); got != "a" {
		t.Errorf("after the back-off came %q", got)
	}
	if _, ok := q.Next(); ok {
		t.Error("an empty queue waits for the clock")
	}
}

func TestUnschedulablePodsAreRetriedWithoutEvents(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.Add(newPod("a", 0), now)
	q.Add(newPod("b", 0), now)
	_, by := popAll(q, now)
	q.MarkUnschedulable(by["b"], []string{"nodes"}, now.Add(time.Second))
	q.MarkUnschedulable(by["a"], []string{"nodes"}, now)
	if got, _ := popAll(q, now.Add(UnschedulableMax)); got != "a" {
		t.Errorf("after %v came %q", UnschedulableMax, got)
	}
	if got, _ := popAll(q, now.Add(UnschedulableMax+time.Second)); got != "b" {
		t.Errorf("a second later came %q", got)
	}
}

func TestBackoffDoubles(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.Add(newPod("a", 0), now)
	for i := range 20 {
		got, by := popAll(q, now)
		if got != "a" {
			t.Fatalf("attempt %d: came %q", i, got)
		}
		if i%2 == 0 {
			q.Retry(by["a"], now)
		} else {
			q.MarkUnschedulable(by["a"], nil, now)
			q.Move(podRemoved, now) // Every event can help a pod that found no nodes.
		}
		at, ok := q.Next()
		if want := min(BackoffMin<<i, BackoffMax); !ok || at.Sub(now) != want {
			t.Fatalf("attempt %d: back-off of %v, want %v", i, at.Sub(now), want)
		}
		now = at
	}
}

func TestRemovedPodsDoNotReturn(t *testing.T) {
	q, now := newQueue(), time.Now()
	for _, name := range []string{"ready", "backoff", "unschedulable", "popped"} {
		q.Add(newPod(name, 0), now)
	}
	_, by := popAll(q, now)
	q.Retry(by["backoff"], now)
	q.MarkUnschedulable(by["unschedulable"], nil, now)
	q.Remove("ready")
	q.Add(newPod("ready", 0), now)
	for name := range by {
		q.Remove(name)
	}
	q.MarkUnschedulable(by["popped"], nil, now)
	q.Retry(by["popped"], now)
	q.Move(nodeAdded, now)
	if got, _ := popAll(q, now.Add(time.Hour)); got != "" || len(q.pods) != 0 {
		t.Errorf("removed pods came back: %q", got)
	}
	if at, ok := q.Next(); ok {
		t.Errorf("an empty queue waits for %v", at)
	}
}

func TestChangedPodsAreTriedAgain(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.Add(newPod("b", 0), now)
	q.Add(newPod("b", 0), now)
	got, by := popAll(q, now)
	if got != "b" {
		t.Fatalf("came %q", got)
	}
	q.MarkUnschedulable(by["b"], []string{"nodes"}, now)
	changed := newPod("b", 5)
	q.Add(changed, now)
	q.Add(changed, now)
	got, by = popAll(q, now.Add(time.Minute))
	if got != "b" || by["b"].Pod != changed {
		t.Errorf("after the change came %q", got)
	}
	// A change while the pod is being bound counts for the next attempt.
	again := newPod("b", 7)
	q.Add(again, now)
	if got, _ := popAll(q, now.Add(time.Hour)); got != "" {
		t.Errorf("a pod that is being bound came out: %q", got)
	}
	q.Retry(by["b"], now)
	if got, by := popAll(q, now.Add(time.Hour)); got != "b" || by["b"].Pod != again {
		t.Errorf("after the failed binding came %q", got)
	}
}

// BenchmarkMove applies an event to 10,000 unschedulable pods, of which it helps one.
func BenchmarkMove(b *testing.B) {
	q, now := newQueue(), time.Now()
	for i := range 10_000 {
		q.Add(newPod(string(rune('a'+i%26))+string(rune(0x100+i)), 0), now)
	}
	for i, w := range q.Pop(10_000, now) {
		by := "nodes"
		if i == 0 {
			by = "pods"
		}
		q.MarkUnschedulable(w, []string{by}, now)
	}
	for b.Loop() {
		q.Move(podRemoved, now)
		for _, w := range q.Pop(1, now.Add(BackoffMax)) {
			q.MarkUnschedulable(w, []string{"pods"}, now)
		}
	}
}
