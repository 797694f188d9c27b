package scheduler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/preemption"
)

func withPriority(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Priority = proto.Int32(n) }
}

// decided returns the preemptions that were decided as "pod@node: victims".
func decided(l *loop) (string, []preemption.Task) {
	tasks := l.takePreemptions()
	var all []string
	for _, t := range tasks {
		all = append(all, fmt.Sprintf("%s@%s: %s", t.Pod.Name, t.Node, strings.Join(podNames(t.Victims), " ")))
	}
	slices.Sort(all)
	return strings.Join(all, ", "), tasks
}

func podNames(pods []*framework.Pod) []string {
	names := make([]string, len(pods))
	for i, p := range pods {
		names[i] = p.Name
	}
	return names
}

// deleted shows a loop that pods are being deleted, and then that they are gone.
func deleted(l *loop, victims []*framework.Pod, gone bool) {
	for _, v := range victims {
		was := newPod(v.Name, "1", on(v.Node), withPriority(v.Priority))
		now := proto.CloneOf(was)
		now.Metadata.DeletionTimestamp = timestamppb.Now()
		now.Status.Conditions = []*corev1.PodCondition{{Type: core.PodDisruptionTarget, Status: "True", Reason: framework.ReasonPreempted}}
		if gone {
			l.podChanged(now, nil)
		} else {
			l.podChanged(was, now)
		}
	}
}

// TestPreemptorWaits has a pod preempt once, wait for its victim, and take the room that is made.
func TestPreemptorWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := idleLoop(t)
		for _, name := range []string{"a", "b"} {
			l.nodeChanged(nil, newNode(name, "1"))
			l.podChanged(nil, newPod("low-"+name, "1", on(name), withPriority(int32(len(name)))))
		}
		high := newPod("high", "1", withPriority(10))
		l.podChanged(nil, high)
		_, _, _ = scheduled(l)
		got, tasks := decided(l)
		if len(tasks) != 1 || len(tasks[0].Victims) != 1 {
			t.Fatalf("decided %q", got)
		}
		node := tasks[0].Node
		again := func(when string) {
			t.Helper()
			afterBackoff()
			l.queue.Activate("high", time.Now())
			if got, _, _ := scheduled(l); got != "" {
				t.Errorf("%s: assigned %q", when, got)
			}
			if got, _ := decided(l); got != "" {
				t.Errorf("%s: decided %q", when, got)
			}
		}
		again("before the victim is marked")
		deleted(l, tasks[0].Victims, false)
		again("while the victim terminates")
		// A pod with lower priority does not take the room, one with higher does.
		deleted(l, tasks[0].Victims, true)
		l.podChanged(nil, newPod("low", "1", withPriority(1)))
		if got, _, _ := scheduled(l); got != "high@"+node {
			afterBackoff()
			if got, _, _ := scheduled(l); got != "high@"+node {
				t.Errorf("assigned %q, want high on %s", got, node)
			}
		}
	})
}

func TestNominatedPodsLoseTheirRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := idleLoop(t)
		l.nodeChanged(nil, newNode("a", "1"))
		l.podChanged(nil, newPod("low", "1", on("a"), withPriority(1)))
		l.podChanged(nil, newPod("middle", "1", withPriority(5)))
		_, _, _ = scheduled(l)
		if got, _ := decided(l); got != "middle@a: low" {
			t.Fatalf("decided %q", got)
		}
		l.podChanged(nil, newPod("high", "1", withPriority(10)))
		_, _, _ = scheduled(l)
		// The victim is about to leave already, so nothing is left to delete.
		if got, _ := decided(l); got != "high@a: " {
			t.Errorf("decided %q", got)
		}
		if n := l.cache.Snapshot().NominatedNode("middle"); n != nil {
			t.Errorf("middle is nominated for %s", n.Name)
		}
		// The end of the pod that waits ends its nomination, and lets another have the room.
		l.podChanged(newPod("low", "1", on("a"), withPriority(1)), nil)
		l.podChanged(newPod("high", "1", withPriority(10)), nil)
		afterBackoff()
		if got, _, _ := scheduled(l); got != "middle@a" {
			t.Errorf("assigned %q", got)
		}
	})
}

// TestNominatedNodeIsDeleted has a pod preempt again when its nominated node is deleted.
func TestNominatedNodeIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := idleLoop(t)
		l.nodeChanged(nil, newNode("a", "1"))
		l.nodeChanged(nil, newNode("b", "1"))
		l.podChanged(nil, newPod("low", "1", on("a"), withPriority(1)))
		l.podChanged(nil, newPod("middle", "1", on("b"), withPriority(2)))
		l.podChanged(nil, newPod("high", "1", withPriority(10)))
		_, _, _ = scheduled(l)
		if got, _ := decided(l); got != "high@a: low" {
			t.Fatalf("decided %q", got)
		}
		l.nodeChanged(newNode("a", "1"), nil)
		afterBackoff()
		_, _, _ = scheduled(l)
		if got, _ := decided(l); got != "high@b: middle" {
			t.Errorf("decided %q", got)
		}
	})
}

// TestManyPreemptions has more pods preempt than one batch decides.
func TestManyPreemptions(t *testing.T) {
	l := idleLoop(t)
	const pods = maxPreemptions + 4
	for i := range pods {
		name := fmt.Sprint("n", i)
		l.nodeChanged(nil, newNode(name, "1"))
		l.podChanged(nil, newPod("low-"+name, "1", on(name), withPriority(1)))
		l.podChanged(nil, newPod("high-"+name, "1", withPriority(10)))
	}
	seen := map[string]bool{}
	for _, want := range []int{maxPreemptions, 4, 0} {
		_, _, _ = scheduled(l)
		_, tasks := decided(l)
		if len(tasks) != want {
			t.Errorf("%d preemptions, want %d", len(tasks), want)
		}
		for _, task := range tasks {
			seen[task.Node] = true
		}
	}
	if len(seen) != pods {
		t.Errorf("room on %d nodes, want %d", len(seen), pods)
	}
}

// TestFailedPreemption has the API refuse to delete the victim.
func TestFailedPreemption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := idleLoop(t)
		l.nodeChanged(nil, newNode("a", "1"))
		l.podChanged(nil, newPod("low", "1", on("a"), withPriority(1)))
		l.podChanged(nil, newPod("high", "1", withPriority(10)))
		_, _, _ = scheduled(l)
		got, tasks := decided(l)
		if got != "high@a: low" {
			t.Fatalf("decided %q", got)
		}
		l.preempted(tasks[0], false, fmt.Errorf("forbidden"))
		afterBackoff()
		_, _, _ = scheduled(l)
		if got, _ := decided(l); got != "high@a: low" {
			t.Errorf("decided %q", got)
		}
	})
}

// TestVictimsOfTwoPods has a preemption come to nothing whose victim another pod waits for.
func TestVictimsOfTwoPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := idleLoop(t)
		l.nodeChanged(nil, newNode("a", "1"))
		l.podChanged(nil, newPod("low", "1", on("a"), withPriority(1)))
		l.podChanged(nil, newPod("middle", "1", withPriority(5)))
		_, _, _ = scheduled(l)
		_, tasks := decided(l)
		l.podChanged(nil, newPod("high", "1", withPriority(10)))
		_, _, _ = scheduled(l)
		_, _ = decided(l)
		l.podChanged(newPod("middle", "1", withPriority(5)), nil)
		l.preempted(tasks[0], false, nil)
		afterBackoff()
		_, _, _ = scheduled(l)
		if got, _ := decided(l); got != "high@a: low" {
			t.Errorf("decided %q", got)
		}
	})
}

// TestNominationsOfTheLeaderBefore starts with a pod that the leader before nominated.
func TestNominationsOfTheLeaderBefore(t *testing.T) {
	l := idleLoop(t)
	l.nodeChanged(nil, newNode("a", "1"))
	l.nodeChanged(nil, newNode("b", "1"))
	deleted(l, []*framework.Pod{{Name: "leaving", Node: "b", Priority: 1}}, false)
	l.podChanged(nil, newPod("other", "1", on("a"), withPriority(0)))
	l.podChanged(nil, newPod("high", "1", withPriority(10), func(p *corev1.Pod) { p.Status.NominatedNodeName = "b" }))
	_, _, _ = scheduled(l)
	if got, _ := decided(l); got != "" {
		t.Errorf("decided %q while the victim of the leader before terminates", got)
	}
}

// TestPreemptionAtRandom has pods with random sizes and priorities come to a full cluster. No pod
// with an equal or higher priority is a victim, each pod has one set of victims at a time, and when
// these are gone the pod is on the node.
func TestPreemptionAtRandom(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			l, nodes := idleLoop(t), 2+r.IntN(8)
			for i := range nodes {
				l.nodeChanged(nil, newNode(fmt.Sprint("n", i), "4"))
			}
			shown := map[string]*corev1.Pod{}
			pending := map[string]preemption.Task{}  // by uid
			present := map[string][]*framework.Pod{} // on the node when room was made, by uid
			for i := range 80 {
				p := newPod(fmt.Sprint("p", i), fmt.Sprintf("%dm", 200+r.IntN(2000)), withPriority(int32(r.IntN(5))))
				shown[p.GetMetadata().GetName()] = p
				l.podChanged(nil, p)
				<-time.After(time.Duration(r.IntN(int(time.Second))))
				assignments, _ := l.schedule()
				for _, a := range assignments {
					now := proto.CloneOf(shown[a.Pod.Name])
					now.Spec.NodeName = a.Node
					delete(pending, a.Pod.UID)
					l.podChanged(shown[a.Pod.Name], now)
					shown[a.Pod.Name] = now
				}
				for _, task := range l.takePreemptions() {
					for uid, was := range pending {
						if was.Node == task.Node && was.Pod.Priority < task.Pod.Priority {
							delete(pending, uid) // It loses its nominated node.
						}
					}
					if was, waits := pending[task.Pod.UID]; waits && len(was.Victims) > 0 {
						t.Errorf("seed %d: %s has victims %v, and then %v", seed, task.Pod.Name, podNames(was.Victims), podNames(task.Victims))
					}
					pending[task.Pod.UID] = task
					present[task.Pod.UID] = slices.Clone(l.cache.Snapshot().Node(task.Node).Pods)
					for _, v := range task.Victims {
						if v.Priority >= task.Pod.Priority {
							t.Errorf("seed %d: %s (%d) is a victim of %s (%d)", seed, v.Name, v.Priority, task.Pod.Name, task.Pod.Priority)
						}
					}
				}
				// Some preemptions end: all victims go, and the pod has room unless one with a higher
				// priority has come for it.
				for _, uid := range slices.Sorted(maps.Keys(pending)) {
					task := pending[uid]
					if r.IntN(2) == 0 {
						continue
					}
					for _, v := range task.Victims {
						l.podChanged(shown[v.Name], nil)
						delete(shown, v.Name)
					}
					task.Victims = nil
					pending[uid] = task
					expectRoom(t, l, task, present[uid])
				}
				expectNoOvercommit(t, l)
			}
		})
	}
}

// expectRoom checks that a pod fits on its nominated node once its victims are gone, unless pods
// with higher priority have come since room was made.
func expectRoom(t *testing.T, l *loop, task preemption.Task, present []*framework.Pod) {
	t.Helper()
	n := l.cache.Snapshot().NominatedNode(task.Pod.UID)
	if n == nil || n.Name != task.Node || slices.ContainsFunc(n.Pods, l.cache.Snapshot().IsPreempted) ||
		slices.ContainsFunc(n.Pods, func(p *framework.Pod) bool {
			return p.Priority > task.Pod.Priority && !slices.ContainsFunc(present, func(o *framework.Pod) bool { return o.UID == p.UID })
		}) {
		return
	}
	if node, err := l.profiles[DefaultName].Schedule(l.cache.Snapshot(), task.Pod); err != nil || node != task.Node {
		t.Errorf("%s does not fit on %s without its victims: %q, %v", task.Pod.Name, task.Node, node, err)
	}
}

func expectNoOvercommit(t *testing.T, l *loop) {
	t.Helper()
	for _, n := range l.cache.Snapshot().Nodes {
		if n.Used[framework.CPU] > n.Allocatable[framework.CPU] {
			t.Errorf("%s has %dm cpu in use", n.Name, n.Used[framework.CPU])
		}
	}
}

// TestRefusedPreemption runs the service against an API that does not let it delete pods.
func TestRefusedPreemption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, newNode("a", "1"))
		clienttest.Seed(s, newPod("low", "1", on("a"), withPriority(1)), newPod("high", "1", withPriority(10)))
		s.Intercept(func(_ string, req proto.Message) error {
			if tx, ok := req.(*apiv1.TransactRequest); ok && tx.GetOperations()[0].GetUpdateStatus() != nil {
				return apierr.Unauthenticated("not allowed")
			}
			return nil
		})
		run(t, DefaultConfig(), c)
		eventually(t, "the condition says why the pod waits", func() bool {
			return core.PodCondition(getPod(t, c, "high"), core.PodScheduled).GetMessage() == "0/1 nodes are available: 1 Insufficient cpu."
		})
		s.Intercept(nil)
		eventually(t, "the pod preempts when it is allowed to", func() bool { return getPod(t, c, "high").GetStatus().GetNominatedNodeName() == "a" })
	})
}

// TestReportsAdd has a pod be reported again before its report is written.
func TestReportsAdd(t *testing.T) {
	failed := report{message: "m", event: true, condition: true}
	nominated := report{message: "n", event: true}
	taken := report{clear: true, taken: true}
	for _, tt := range []struct{ was, next, want report }{
		{failed, taken, report{message: "m", event: true, condition: true, clear: true, taken: true}},
		{taken, failed, report{message: "m", event: true, condition: true, clear: true, taken: true}},
		{nominated, taken, report{message: "n", event: true, clear: true, taken: true}},
		{taken, nominated, nominated},
		{failed, nominated, nominated},
		{nominated, failed, failed},
	} {
		if got := tt.next.after(tt.was); got != tt.want {
			t.Errorf("%+v after %+v: %+v, want %+v", tt.next, tt.was, got, tt.want)
		}
	}
}

// TestNominatedNodesAreShown runs the service, and looks at status.nominatedNodeName.
func TestNominatedNodesAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, newNode("a", "1"))
		clienttest.Seed(s, newPod("huge", "4", withPriority(1), func(p *corev1.Pod) { p.Status.NominatedNodeName = "a" }))
		graceful := func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(30) }
		clienttest.Seed(s, newPod("low", "1", on("a"), withPriority(1), graceful))
		run(t, DefaultConfig(), c)
		nominated := func(name string) string { return getPod(t, c, name).GetStatus().GetNominatedNodeName() }
		eventually(t, "the pod that preemption does not help is not nominated any more", func() bool { return nominated("huge") == "" })

		clienttest.Seed(s, newPod("middle", "1", withPriority(5)))
		eventually(t, "middle is nominated", func() bool { return nominated("middle") == "a" })
		eventually(t, "low is being deleted", func() bool { return getPod(t, c, "low").GetMetadata().GetDeletionTimestamp() != nil })
		clienttest.Seed(s, newPod("high", "1", withPriority(10)))
		eventually(t, "high is nominated in its place", func() bool { return nominated("high") == "a" && nominated("middle") == "" })
		clienttest.Remove(s, getPod(t, c, "low"))
		eventually(t, "high is bound", func() bool { return getPod(t, c, "high").GetSpec().GetNodeName() == "a" })
		eventually(t, "the victim has an event", func() bool {
			n, message := eventsOf(t, c, "low", "Preempted")
			return n == 1 && message == "Preempted by pod middle on node a"
		})
	})
}

func TestExplainPreemption(t *testing.T) {
	s, c := clienttest.Start(t)
	e := &explainer{client: c, cfg: DefaultConfig(), profiles: DefaultConfig().newProfiles(), scheduler: DefaultName}
	clienttest.Seed(s, newNode("a", "1"), newNode("b", "1"), newNode("cordoned", "1", cordoned))
	clienttest.Seed(s, &policyv1.PodDisruptionBudget{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "all"}, Spec: &policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}},
	})
	clienttest.Seed(s, newPod("low", "1", on("a"), withPriority(1)), newPod("high", "1", on("b"), withPriority(100)),
		newPod("waiting", "1", withPriority(10)), newPod("weak", "1", withPriority(1)))
	for name, want := range map[string]struct{ preemption, rows string }{
		"waiting": {"it makes room on node a by deleting default/low; this violates PodDisruptionBudgets for 1 of them",
			"a default/low , b  No preemption victims found for incoming pod, cordoned  "},
		"weak": {"no room is made: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, " +
			"2 No preemption victims found for incoming pod.",
			"a  No preemption victims found for incoming pod, b  No preemption victims found for incoming pod, cordoned  "},
		"low": {"", "a  , b  , cordoned  "},
	} {
		got, err := e.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		var rows []string
		for _, r := range got.GetNodes() {
			rows = append(rows, fmt.Sprintf("%s %s %s", r.GetNodeName(), strings.Join(r.GetVictims(), " "), r.GetNoVictims()))
		}
		if got.GetPreemption() != want.preemption || strings.Join(rows, ", ") != want.rows {
			t.Errorf("%s: %q\n%q, want\n%q", name, got.GetPreemption(), strings.Join(rows, ", "), want.rows)
		}
	}
}
