package scheduler

import (
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/services/scheduler/framework"
)

func waitingPod(name string, priority int32) *framework.Pod {
	return &framework.Pod{Name: name, UID: name, Priority: priority}
}

// taken takes all that is ready and returns the names, and the pods by name.
func taken(q *queue, now time.Time) (string, map[string]*waiting) {
	var names []string
	by := map[string]*waiting{}
	for _, w := range q.take(100, now) {
		names = append(names, w.pod.Name)
		by[w.pod.Name] = w
	}
	return strings.Join(names, " "), by
}

func TestQueueOrder(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.add(waitingPod("old", 0), now)
	q.add(waitingPod("young", 0), now.Add(time.Second))
	q.add(waitingPod("high", 9), now.Add(2*time.Second))
	q.add(waitingPod("low", -9), now)
	q.add(waitingPod("gone", 99), now)
	q.remove("gone")
	q.remove("never there")
	if first := q.take(2, now); len(first) != 2 || first[0].pod.Name != "high" || first[1].pod.Name != "old" {
		t.Errorf("the first batch is %v", first)
	}
	if got, _ := taken(q, now); got != "young low" {
		t.Errorf("then came %q", got)
	}
}

func TestQueueParks(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.add(waitingPod("a", 0), now)
	_, by := taken(q, now)
	q.park(by["a"], []string{"NodeResources"}, now)

	q.wake(now, "NodeSelector")
	if got, _ := taken(q, now.Add(time.Minute)); got != "" {
		t.Errorf("a change that does not help woke %q", got)
	}
	if at, ok := q.next(); !ok || !at.Equal(now.Add(retryAll)) {
		t.Errorf("due at %v, %v; want to be tried again after %v at the latest", at, ok, retryAll)
	}
	q.wake(now, "NodeResources", "HostPorts")
	if got, _ := taken(q, now); got != "" {
		t.Errorf("%q came out before its backoff was over", got)
	}
	if at, ok := q.next(); !ok || !at.Equal(now.Add(backoffMin)) {
		t.Errorf("due at %v, %v", at, ok)
	}
	now = now.Add(backoffMin)
	got, by := taken(q, now)
	if got != "a" {
		t.Fatalf("after the backoff came %q", got)
	}
	// The backoff doubles, up to its most.
	for range 20 {
		q.park(by["a"], nil, now)
		q.wake(now, "anything") // refused by no filter: there were no nodes
		at, _ := q.next()
		if d := at.Sub(now); d > backoffMax {
			t.Fatalf("held back for %v", d)
		}
		now = at
		if got, by = taken(q, now); got != "a" {
			t.Fatalf("at %v came %q", at, got)
		}
	}
	q.park(by["a"], []string{"NodeSelector"}, now)
	if got, _ := taken(q, now.Add(retryAll)); got != "a" {
		t.Errorf("after %v came %q", retryAll, got)
	}
}

func TestQueueForgets(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.add(waitingPod("a", 0), now)
	_, by := taken(q, now)
	q.remove("a") // deleted while it is looked at
	q.park(by["a"], nil, now)
	q.retry(by["a"], now)
	q.wake(now, "anything")
	if got, _ := taken(q, now.Add(time.Hour)); got != "" || len(q.held) != 0 {
		t.Errorf("a pod that is gone came back: %q", got)
	}
	// A change of a parked pod is a reason to look at it again; twice in the queue it never is.
	q.add(waitingPod("b", 0), now)
	q.add(waitingPod("b", 0), now)
	got, by := taken(q, now)
	if got != "b" {
		t.Fatalf("came %q", got)
	}
	q.park(by["b"], []string{"NodeSelector"}, now)
	changed := waitingPod("b", 5)
	q.add(changed, now)
	q.add(changed, now)
	if got, by := taken(q, now.Add(time.Minute)); got != "b" || by["b"].pod != changed {
		t.Errorf("after the change came %q", got)
	}
}
